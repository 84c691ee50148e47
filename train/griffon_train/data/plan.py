"""The plan: which rows an optimizer step eats, as a pure function of frozen sets, weights, seed and batch size.

No step depends on the one before it: any of them is computed alone, at the same small cost, by random access through
keyed permutations. World size, micro-batch and workers do not enter; `split.py` shares a step out.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.permutation import permutation_key, permute
from griffon_shards.support.errors import SettingsError
from griffon_train.data.lengths import Lengths
from griffon_train.data.source_stream import SourceStream, find_runs

PLAN_VERSION = 1
"""Raised only when our code changes the order for the same inputs and settings."""

DEFAULT_WINDOW = 32
"""Batches of a group that are sorted by length together, an eighth of an epoch's at most."""

_MAX_NUMBER = 1 << 62
_WINDOWS_AT_ONCE = 8  # looked up together, which costs less than one by one and changes nothing
_LEAST_WINDOWS = 8  # of an epoch; if one window were all of it, sorting would cut the same batches every epoch
_SHUFFLE = "full"  # the whole epoch of a group; the digest has a place for other ways


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One global batch. A row's place in these arrays is its slot.

    Attributes:
        number: of the step, from 0 on, over all epochs.
        epoch: that the batch belongs to.
        group: name of the group that all rows are of.
        sets: which set each row is of, shape [G].
        rows: rows in these sets, shape [G].
        variants: which rendering of each, shape [G].
        lengths: in tokens, shape [G].
    """

    number: int
    epoch: int
    group: str
    sets: NDArray[np.int64]
    rows: NDArray[np.int64]
    variants: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Plan:
    """Maps a step to its rows; see `DESIGN` §8.

    Attributes:
        sets: the frozen sets, in order.
        global_batch: samples of a step.
        lengths: of the rows.
        groups: names of the groups that have rows.
        identity: everything that the order depends on.
        digest: SHA-256 of the canonical JSON of it.
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
        """Lay out the sources of some sets.

        Args:
            sets: at least one; the order counts.
            seed: of every shuffle.
            global_batch: samples of a step, fixed for the run.
            grouping: one of `griffon_train.data.source_stream.GROUPINGS`.
            window: batches of a group that are sorted by length together; with 1 each is what falls to it.
            lengths: of the rows; estimated from the indexes where not given.
            weights: overrides what the locks say, by tag.

        Raises:
            SettingsError: no such grouping or tag, a set given twice, or no rows at all.
        """
        digests = [each.lock.digest for each in sets]
        if len(set(digests)) != len(digests):
            raise SettingsError("the same set is given twice; to show it more often, raise its sources' weights")
        if not sets or global_batch < 1 or window < 1:
            raise SettingsError("a plan needs a set, and a global batch and a window of at least 1")
        if not -_MAX_NUMBER < seed < _MAX_NUMBER:
            raise SettingsError(f"seed {seed}: expected a whole number of at most 62 bits")
        self.sets = tuple(sets)
        self.global_batch = global_batch
        self._seed = seed
        self._window = window
        self.lengths = lengths or Lengths.estimated(sets)
        runs = find_runs(sets, grouping, weights or {})
        self._runs = {name: tuple(runs[name]) for name in runs}
        self.groups = tuple(self._runs)
        if not runs:
            raise SettingsError("the sets have no rows")
        self.identity: dict[str, Any] = {
            "plan_version": PLAN_VERSION,
            "sets": digests,
            "weights": [
                {run.tag: str(run.weight) for run in self._all_runs if run.set_no == i} for i in range(len(sets))
            ],
            "seed": seed,
            "global_batch": global_batch,
            "grouping": grouping,
            "window": window,
            "lengths": self.lengths.identity,
            "shuffle": _SHUFFLE,
        }
        canonical = orjson.dumps(self.identity, option=orjson.OPT_SORT_KEYS)
        self.digest = hashlib.sha256(canonical).hexdigest()
        self._first_places = lru_cache(64)(self._first_place_of)
        self._labels = lru_cache(2)(self._labels_of)
        self._sorted = lru_cache(2 * len(self.groups))(self._sorted_windows)

    @property
    def _all_runs(self) -> list[SourceStream]:
        return [run for runs in self._runs.values() for run in runs]

    def first_step(self, epoch: int) -> int:
        """The step that epoch begins with."""
        return sum(self._first_batch(group, epoch) for group in self.groups)

    def steps_of(self, epochs: float) -> int:
        """Steps of some epochs, at least one; a part of an epoch ends at the nearest step."""
        whole, part = divmod(Fraction(str(epochs)), 1)
        first = self.first_step(whole)
        return max(1, first + round(part * (self.first_step(whole + 1) - first)))

    def epoch_of(self, step: int) -> int:
        """The epoch that a step belongs to."""
        high = 1
        while self.first_step(high) <= step:
            high *= 2
        return bisect_right(range(high + 1), step, key=self.first_step) - 1

    def step(self, number: int) -> Step:
        """The rows of a step.

        Raises:
            SettingsError: the number is below 0, or beyond any run.
        """
        if not 0 <= number < _MAX_NUMBER // self.global_batch:
            raise SettingsError(f"step {number}: steps are numbered from 0 on, and places in the stream have 62 bits")
        epoch = self.epoch_of(number)
        labels = self._labels(epoch)
        within = number - self.first_step(epoch)
        label = int(labels[within])
        group = self.groups[label]
        batch = self._first_batch(group, epoch) + int(np.count_nonzero(labels[:within] == label))
        run_of, rows, variants, lengths = self._batch(group, epoch, batch)
        sets = np.array([run.set_no for run in self._runs[group]])[run_of]
        return Step(number=number, epoch=epoch, group=group, sets=sets, rows=rows, variants=variants, lengths=lengths)

    def steps_by_group(self, epoch: int) -> dict[str, int]:
        """How many steps of an epoch each group has."""
        return {group: self._first_batch(group, epoch + 1) - self._first_batch(group, epoch) for group in self.groups}

    def samples_by_group(self, epoch: int) -> dict[str, int]:
        """How many samples an epoch shows of each group; its last step may take some of the next epoch."""
        return {group: self._first_place(group, epoch + 1) - self._first_place(group, epoch) for group in self.groups}

    def _first_place(self, group: str, epoch: int) -> int:
        """Where in its group's stream an epoch begins."""
        return self._first_places(group, epoch)

    def _first_place_of(self, group: str, epoch: int) -> int:
        return sum(run.first_place(epoch) for run in self._runs[group])

    def _first_batch(self, group: str, epoch: int) -> int:
        """The first batch of a group that belongs to an epoch: whose first place does."""
        return -(-self._first_place(group, epoch) // self.global_batch)

    def _labels_of(self, epoch: int) -> NDArray[np.uint8]:
        """The group of each step of an epoch, as its place in `groups`."""
        counts = list(self.steps_by_group(epoch).values())
        total = sum(counts)
        if not total:
            return np.empty(0, np.uint8)
        drawn = permute(np.arange(total), total, self._key("steps", epoch))
        return np.searchsorted(np.cumsum(counts), drawn, side="right").astype(np.uint8)

    def _batch(self, group: str, epoch: int, batch: int) -> tuple[NDArray[np.int64], ...]:
        """Runs, rows, variants and lengths of a batch of a group."""
        size = self.global_batch
        first_whole = self._first_batch(group, epoch)
        whole = self._first_place(group, epoch + 1) // size - first_whole
        within = batch - first_whole
        if within >= whole:  # it straddles two epochs
            return self._rows(group, np.arange(batch * size, (batch + 1) * size))
        window = min(self._window, max(1, whole // _LEAST_WINDOWS))
        first = within - within % (window * _WINDOWS_AT_ONCE)
        stop = min(whole, first + window * _WINDOWS_AT_ONCE)
        columns = self._sorted(group, epoch, first_whole + first, first_whole + stop, window)
        place = (within - first) * size
        run_of, rows, variants, lengths = (column[place : place + size] for column in columns)
        return run_of, rows, variants, lengths

    def _sorted_windows(
        self, group: str, epoch: int, first: int, stop: int, window: int
    ) -> tuple[NDArray[np.int64], ...]:
        """The rows of some whole batches; in each window like lengths together, its batches in drawn order."""
        size = self.global_batch
        columns = self._rows(group, np.arange(first * size, stop * size))
        orders = []
        for start in range(first, stop, window):
            count = min(window, stop - start)
            place = (start - first) * size
            by_length = np.argsort(columns[3][place : place + count * size], kind="stable").reshape(count, size)
            drawn = permute(np.arange(count), count, self._key("window", group, epoch, start))
            orders.append(place + by_length[drawn.astype(np.int64)].reshape(-1))
        order = np.concatenate(orders)
        for each in self.sets:
            each.let_index_go()
        return tuple(column[order] for column in columns)

    def _rows(self, group: str, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Runs, rows, variants and lengths at ascending places of a group's stream."""
        runs = self._runs[group]
        run_of, place = np.empty_like(places), np.empty_like(places)
        position = 0
        epoch = self._epoch_at(group, int(places[0]))
        while position < len(places):
            first, end = self._first_place(group, epoch), self._first_place(group, epoch + 1)
            stop = int(np.searchsorted(places, end))
            if stop > position:
                drawn = permute(places[position:stop] - first, end - first, self._key("group", group, epoch))
                firsts = np.array([run.first_place(epoch) for run in runs])
                ends = np.cumsum(np.array([run.first_place(epoch + 1) for run in runs]) - firsts)
                found = np.searchsorted(ends, drawn.astype(np.int64), side="right")
                starts = firsts - np.concatenate(([0], ends[:-1]))
                run_of[position:stop] = found
                place[position:stop] = drawn.astype(np.int64) + starts[found]
            position, epoch = stop, epoch + 1
        return self._at(runs, run_of, place)

    def _epoch_at(self, group: str, place: int) -> int:
        high = 1
        while self._first_place(group, high) <= place:
            high *= 2
        return bisect_right(range(high + 1), place, key=lambda epoch: self._first_place(group, epoch)) - 1

    def _at(
        self, runs: Sequence[SourceStream], run_of: NDArray[np.int64], place: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], ...]:
        rows, variants, lengths = np.empty_like(place), np.empty_like(place), np.empty_like(place)
        for number, run in enumerate(runs):
            mine = np.flatnonzero(run_of == number)
            if mine.size:
                rows[mine], variants[mine] = run.rows(place[mine], self._seed)
                lengths[mine] = self.lengths.of(run.set_no, rows[mine], variants[mine])
        return run_of, rows, variants, lengths

    def _key(self, *parts: object) -> bytes:
        return permutation_key("plan", self._seed, *self.identity["sets"], *parts)
