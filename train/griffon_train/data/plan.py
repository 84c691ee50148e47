"""The plan: which rows an optimizer step consumes, as a pure function of frozen sets, weights, seed and batch size.

No step depends on the one before it. Each is computed independently, at the same small cost, by random access through
keyed permutations. World size, micro-batch and workers play no part; `rank_split.py` divides a step among the ranks.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.permutation import permutation_key, permute
from griffon_shards.support.errors import SettingsError
from griffon_train.data.group_stream import GroupStream
from griffon_train.data.lengths import Lengths
from griffon_train.data.source_stream import streams_by_group

PLAN_VERSION = 1
"""Increased only when a code change alters the order for the same inputs and settings."""

DEFAULT_WINDOW = 32
"""Batches of a group that are sorted by length together; at most an eighth of an epoch."""

_MAX_NUMBER = 1 << 62
_WINDOWS_AT_ONCE = 8  # looked up together for speed; does not affect the order
_ROWS_AT_ONCE = 1 << 20  # fewer windows are, if their rows are more than these: they would take gigabytes
_LEAST_WINDOWS = 8  # per epoch; with a single window, sorting would make the same batches every epoch
_SHUFFLE = "full"  # over the complete epoch of a group; part of the digest, so that other ways can be added


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One global batch of G rows. A row's index in these arrays is its slot.

    Attributes:
        number: number of the step, from 0, across all epochs.
        epoch: epoch that the batch belongs to.
        group: group that all rows belong to.
        sets: set number of each row, shape [G].
        rows: row number within its set, shape [G].
        variants: rendering of each row, shape [G].
        lengths: length of each row in tokens, shape [G].
    """

    number: int
    epoch: int
    group: str
    sets: NDArray[np.int64]
    rows: NDArray[np.int64]
    variants: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Plan:
    """Maps a step to its rows; see docs/design.md, section 8.

    Attributes:
        sets: the frozen sets, in order.
        global_batch: samples per step.
        lengths: lengths of the rows.
        groups: names of the groups that have rows.
        seed: seed of every shuffle.
        streams: the stream of each group.
        identity: everything that the order depends on.
        digest: SHA-256 of the canonical JSON of `identity`.
    """

    def __init__(
        self,
        sets: Sequence[FrozenSet],
        *,
        seed: int,
        global_batch: int,
        grouping: str = "none",
        window: int = DEFAULT_WINDOW,
        lengths: Lengths | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """Build a plan over the sources of some sets.

        Args:
            sets: at least one; their order matters.
            seed: seed of every shuffle.
            global_batch: samples per step, fixed for the run.
            grouping: one of `griffon_train.data.source_stream.GROUPINGS`.
            window: batches of a group that are sorted by length together; 1 turns sorting off.
            lengths: lengths of the rows; estimated from the indexes by default.
            weights: weights by tag, which override those in the locks.

        Raises:
            SettingsError: an unknown grouping or tag, a set given twice, or no rows at all.
        """
        _check_inputs(sets, seed, global_batch, window)
        self.sets = tuple(sets)
        self.global_batch = global_batch
        self.seed = seed
        self._window = window
        self.lengths = lengths or Lengths.estimated(sets)
        self._set_digests = [frozen.lock.digest for frozen in sets]
        self.streams: Mapping[str, GroupStream] = {
            name: GroupStream(name, sources, seed=seed, set_digests=self._set_digests)
            for name, sources in streams_by_group(sets, grouping, weights or {}).items()
        }
        self.groups = tuple(self.streams)
        if not self.streams:
            raise SettingsError("the sets have no rows")
        self.identity = self._identity(grouping)
        self._arguments: dict[str, Any] = {
            "seed": seed,
            "global_batch": global_batch,
            "grouping": grouping,
            "window": window,
            "lengths": lengths,
            "weights": weights,
        }
        canonical = orjson.dumps(self.identity, option=orjson.OPT_SORT_KEYS)
        self.digest = hashlib.sha256(canonical).hexdigest()
        self._labels = lru_cache(2)(self._labels_of)
        self._sorted = lru_cache(2 * len(self.groups))(self._sorted_windows)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(Plan, **self._arguments), (self.sets,)

    def _identity(self, grouping: str) -> dict[str, Any]:
        weights: list[dict[str, str]] = [{} for _ in self.sets]
        for stream in self.streams.values():
            for source in stream.sources:
                weights[source.set_no][source.tag] = str(source.weight)
        return {
            "plan_version": PLAN_VERSION,
            "sets": self._set_digests,
            "weights": weights,
            "seed": self.seed,
            "global_batch": self.global_batch,
            "grouping": grouping,
            "window": self._window,
            "lengths": self.lengths.identity,
            "shuffle": _SHUFFLE,
        }

    def first_step(self, epoch: int) -> int:
        """Return the first step of an epoch."""
        return sum(self.first_batch(group, epoch) for group in self.groups)

    def steps_of(self, epochs: float) -> int:
        """Return the number of steps in some epochs, at least one; a fraction of an epoch ends at the nearest step."""
        whole, part = divmod(Fraction(str(epochs)), 1)
        first = self.first_step(whole)
        return max(1, first + round(part * (self.first_step(whole + 1) - first)))

    def epoch_of(self, step: int) -> int:
        """Return the epoch that a step belongs to."""
        high = 1
        while self.first_step(high) <= step:
            high *= 2
        return bisect_right(range(high + 1), step, key=self.first_step) - 1

    def step(self, number: int) -> Step:
        """Return the rows of a step.

        Raises:
            SettingsError: the number is negative or too large.
        """
        if not 0 <= number < _MAX_NUMBER // self.global_batch:
            raise SettingsError(f"step {number}: expected at least 0, and positions in the stream of at most 62 bits")
        epoch = self.epoch_of(number)
        group = self.groups[int(self._labels(epoch)[number - self.first_step(epoch)])]
        batch = self.batches_before(group, number)
        sets, rows, variants, lengths = self._batch(group, epoch, batch)
        return Step(number=number, epoch=epoch, group=group, sets=sets, rows=rows, variants=variants, lengths=lengths)

    def batches_before(self, group: str, step: int) -> int:
        """Return the number of a group's batches that the steps before the given one consume."""
        epoch = self.epoch_of(step)
        labels = self._labels(epoch)[: step - self.first_step(epoch)]
        return self.first_batch(group, epoch) + int(np.count_nonzero(labels == self.groups.index(group)))

    def step_of(self, group: str, batch: int) -> int:
        """Return the step that consumes a batch of a group."""
        epoch = self.streams[group].epoch_at(batch * self.global_batch)
        of_group = np.flatnonzero(self._labels(epoch) == self.groups.index(group))
        return self.first_step(epoch) + int(of_group[batch - self.first_batch(group, epoch)])

    def steps_by_group(self, epoch: int) -> dict[str, int]:
        """Return the number of steps that each group has in an epoch."""
        return {group: self.first_batch(group, epoch + 1) - self.first_batch(group, epoch) for group in self.groups}

    def samples_by_group(self, epoch: int) -> dict[str, int]:
        """Return the number of samples of each group in an epoch; its last step may include some of the next epoch."""
        return {
            group: stream.first_place(epoch + 1) - stream.first_place(epoch) for group, stream in self.streams.items()
        }

    def first_batch(self, group: str, epoch: int) -> int:
        """Return the first batch of a group in an epoch; a batch belongs to the epoch of its first position."""
        return -(-self.streams[group].first_place(epoch) // self.global_batch)

    def _labels_of(self, epoch: int) -> NDArray[np.uint8]:
        """Return the group of each step of an epoch, as its index in `groups`."""
        counts = list(self.steps_by_group(epoch).values())
        total = sum(counts)
        if not total:
            return np.empty(0, np.uint8)
        drawn = permute(np.arange(total), total, self._key("steps", epoch))
        return np.searchsorted(np.cumsum(counts), drawn, side="right").astype(np.uint8)

    def _batch(self, group: str, epoch: int, batch: int) -> tuple[NDArray[np.int64], ...]:
        """Return sets, rows, variants and lengths of a batch of a group."""
        size = self.global_batch
        first_whole, stop_whole, window = self._windows(group, epoch)
        if batch >= stop_whole:  # the batch spans two epochs
            return self.streams[group].rows(np.arange(batch * size, (batch + 1) * size), self.lengths)
        at_once = window * max(1, min(_WINDOWS_AT_ONCE, _ROWS_AT_ONCE // (window * size)))
        first = batch - (batch - first_whole) % at_once
        stop = min(stop_whole, first + at_once)
        columns = self._sorted(group, epoch, first, stop, window)
        place = (batch - first) * size
        return tuple(column[place : place + size] for column in columns)

    def _windows(self, group: str, epoch: int) -> tuple[int, int, int]:
        """Return the first complete batch of an epoch, one past the last, and the number of batches in a window."""
        first = self.first_batch(group, epoch)
        stop = self.streams[group].first_place(epoch + 1) // self.global_batch
        return first, stop, min(self._window, max(1, (stop - first) // _LEAST_WINDOWS))

    def window_of(self, group: str, batch: int) -> range:
        """Return the batches of a group that are sorted by length together with the given one."""
        first, stop, window = self._windows(group, self.streams[group].epoch_at(batch * self.global_batch))
        if batch >= stop:  # it spans two epochs and stays as it falls
            return range(batch, batch + 1)
        start = batch - (batch - first) % window
        return range(start, min(start + window, stop))

    def window_places(self, group: str, batches: range) -> NDArray[np.int64]:
        """Return the positions in a group's stream that a window of `window_of` consumes, in order of batch and slot.

        The shape is [batches, G].
        """
        places = np.arange(batches.start * self.global_batch, batches.stop * self.global_batch)
        epoch = self.streams[group].epoch_at(int(places[0]))
        if batches.start < self._windows(group, epoch)[1]:
            lengths = self.streams[group].rows(places, self.lengths)[3]
            places = places[self._window_order(group, epoch, batches, lengths)]
        return places.reshape(len(batches), self.global_batch)

    def _window_order(self, group: str, epoch: int, batches: range, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sort a window by length into batches, then shuffle the batches; return the order of its positions."""
        by_length = np.argsort(lengths, kind="stable").reshape(len(batches), self.global_batch)
        drawn = permute(np.arange(len(batches)), len(batches), self._key("window", group, epoch, batches.start))
        return by_length[drawn.astype(np.int64)].reshape(-1)

    def _sorted_windows(
        self, group: str, epoch: int, first: int, stop: int, window: int
    ) -> tuple[NDArray[np.int64], ...]:
        """Return the rows of complete batches; each window is sorted by length into batches, then shuffled by batch."""
        size = self.global_batch
        columns = self.streams[group].rows(np.arange(first * size, stop * size), self.lengths)
        orders = []
        for start in range(first, stop, window):
            batches = range(start, min(start + window, stop))
            places = slice((start - first) * size, (batches.stop - first) * size)
            orders.append(places.start + self._window_order(group, epoch, batches, columns[3][places]))
        order = np.concatenate(orders)
        for frozen in self.sets:
            frozen.let_index_go()
        return tuple(column[order] for column in columns)

    def _key(self, *parts: object) -> bytes:
        return permutation_key("plan", self.seed, *self._set_digests, *parts)


def _check_inputs(sets: Sequence[FrozenSet], seed: int, global_batch: int, window: int) -> None:
    if len({frozen.lock.digest for frozen in sets}) != len(sets):
        raise SettingsError("the same set is given twice; to use it more often, raise its sources' weights")
    if not sets or global_batch < 1 or window < 1:
        raise SettingsError("a plan needs at least one set, and a global batch and a window of at least 1")
    if not -_MAX_NUMBER < seed < _MAX_NUMBER:
        raise SettingsError(f"seed {seed}: expected an integer of at most 62 bits")
