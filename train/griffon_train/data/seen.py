"""The samples that the steps of a run consumed, from the plan alone.

The plan's permutations are inverted, so a question costs about as much at millions of samples as at hundreds: only the
windows in which a sample may stand are computed, never the steps before them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from griffon_train.data.plan import Plan, Step
from griffon_train.data.steering import Steering

_AT_ONCE = 1 << 16
"""Positions that are looked up together in search of a source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One use of a sample: the step, the step's epoch, the slot in the global batch, and the variant shown."""

    step: int
    epoch: int
    slot: int
    variant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShowings:
    """The use of a source.

    Attributes:
        set_no: index of its set in the plan.
        tag: its tag.
        samples: number of samples that it has.
        shown: number of times that one of them was used.
        first: first step that used one, or None.
    """

    set_no: int
    tag: str
    samples: int
    shown: int
    first: int | None


class Seen:
    """The samples that the steps of a plan before a given one consumed.

    Attributes:
        plan: the order of samples.
        stop: number of steps; a later step counts as never taken.
        steering: the steps that it skips count as never taken, too.
    """

    def __init__(self, plan: Plan, stop: int, steering: Steering) -> None:
        self.plan, self.stop, self.steering = plan, stop, steering
        self._batches = {group: plan.batches_before(group, stop) for group in plan.groups}

    @property
    def skipped(self) -> int:
        """The number of steps before `stop` that were skipped."""
        return sum(end - first for first, end in self.steering.before(self.stop).skipped)

    def of_row(self, set_no: int, row: int) -> list[Showing]:
        """Return every use of a sample, in order."""
        showings = [
            self._showing(group, place, variant)
            for group, streams in self.plan.streams.items()
            for number, stream in enumerate(streams)
            if stream.set_no == set_no
            for place, variant in self._places_of_row(group, number, row)
        ]
        return sorted(
            (showing for showing in showings if self._taken(showing.step)), key=lambda each: (each.step, each.slot)
        )

    def of_sources(self) -> list[SourceShowings]:
        """Return the use of every source that has samples, in the order of the sets and their sources."""
        shown: dict[tuple[int, str], int] = {}
        firsts: dict[tuple[int, str], list[int]] = {}
        for group, streams in self.plan.streams.items():
            for number, (stream, times) in enumerate(zip(streams, self._counts(group).tolist(), strict=True)):
                source = stream.set_no, stream.tag
                shown[source] = shown.get(source, 0) + times
                first = self._first(group, number)
                firsts.setdefault(source, []).extend([] if first is None else [first])
        for step in self._skipped_steps():
            for set_no, row in zip(step.sets.tolist(), step.rows.tolist(), strict=True):
                shown[set_no, self._tag(set_no, row)] -= 1
        return [
            SourceShowings(
                set_no=set_no,
                tag=source.tag,
                samples=source.samples,
                shown=shown[set_no, source.tag],
                first=min(firsts[set_no, source.tag], default=None),
            )
            for set_no, frozen in enumerate(self.plan.sets)
            for source in frozen.lock.sources
            if (set_no, source.tag) in shown
        ]

    def last_steps(self, steps: int, group: str | None = None) -> list[Step]:
        """Return the last steps that were taken, of one group or of all, in order."""
        if group is None:
            numbers: Iterable[int] = range(self.stop - 1, -1, -1)
        else:
            numbers = (self.plan.step_of(group, batch) for batch in range(self._batches[group] - 1, -1, -1))
        taken = (number for number in numbers if number not in self.steering)
        return [self.plan.step(number) for number, _ in zip(taken, range(steps), strict=False)][::-1]

    def keys(self, step: Step) -> list[str]:
        """Return the keys of a step's samples, in order of their slots."""
        return [
            self.plan.sets[set_no].key(row) for set_no, row in zip(step.sets.tolist(), step.rows.tolist(), strict=True)
        ]

    def _taken(self, step: int) -> bool:
        return step < self.stop and step not in self.steering

    def _skipped_steps(self) -> Iterator[Step]:
        for first, end in self.steering.before(self.stop).skipped:
            yield from map(self.plan.step, range(first, end))

    def _tag(self, set_no: int, row: int) -> str:
        frozen = self.plan.sets[set_no]
        return frozen.lock.sources[int(frozen.index["source"][row])].tag

    def _last_epoch(self, group: str) -> int:
        """Return the epoch of the last position in a group's stream that was consumed; -1 if there is none."""
        batches = self._batches[group]
        return self.plan.epoch_at(group, batches * self.plan.global_batch - 1) if batches else -1

    def _places_of_row(self, group: str, number: int, row: int) -> Iterator[tuple[int, int]]:
        """Yield the positions of a row in a group's stream, each with its variant, in all epochs that were begun."""
        stream = self.plan.streams[group][number]
        last = self._last_epoch(group)
        for pass_no in count():
            place = stream.place_of(row, pass_no, self.plan.seed)
            if place is None or stream.epoch_at(pass_no * stream.count) > last:
                return
            epoch = stream.epoch_at(place)
            if epoch <= last:
                of_group = int(self.plan.places_of(group, epoch, number, np.array([place]))[0])
                yield of_group, pass_no % stream.variants

    def _showing(self, group: str, place: int, variant: int) -> Showing:
        plan = self.plan
        batches = plan.window_of(group, place // plan.global_batch)
        ((within, slot),) = np.argwhere(plan.window_places(group, batches) == place).tolist()
        batch = batches.start + within
        epoch = plan.epoch_at(group, batch * plan.global_batch)
        return Showing(step=plan.step_of(group, batch), epoch=epoch, slot=slot, variant=variant)

    def _counts(self, group: str) -> NDArray[np.int64]:
        """Return how often the batches of a group before `stop` use each of its streams, shape [streams]."""
        plan, batches = self.plan, self._batches[group]
        window = plan.window_of(group, batches)
        end = window.start * plan.global_batch  # every batch before it is consumed, however it was sorted
        epoch = plan.epoch_at(group, end)
        first, following = plan.first_place(group, epoch), plan.first_place(group, epoch + 1)
        if end - first <= following - end:
            counts = self._starts(group, epoch) + self._used(group, np.arange(first, end))
        else:
            counts = self._starts(group, epoch + 1) - self._used(group, np.arange(end, following))
        begun = plan.window_places(group, window)[: batches - window.start] if batches > window.start else np.array([])
        return counts + self._used(group, np.sort(begun.reshape(-1)))

    def _starts(self, group: str, epoch: int) -> NDArray[np.int64]:
        return np.array([stream.first_place(epoch) for stream in self.plan.streams[group]])

    def _used(self, group: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
        streams = len(self.plan.streams[group])
        if not places.size:
            return np.zeros(streams, np.int64)
        return np.bincount(self.plan.streams_at(group, places)[0], minlength=streams)

    def _first(self, group: str, number: int) -> int | None:
        """Return the first step that was taken and uses a stream."""
        plan, place = self.plan, 0
        while (found := self._next(group, number, place)) is not None:
            batches = plan.window_of(group, found // plan.global_batch)
            places = plan.window_places(group, batches).reshape(-1)
            ascending = np.argsort(places)
            is_used = np.empty(places.size, np.bool_)
            is_used[ascending] = plan.streams_at(group, places[ascending])[0] == number
            using = np.flatnonzero(is_used.reshape(len(batches), -1).any(axis=1)).tolist()
            steps = [plan.step_of(group, batches.start + within) for within in using]
            if taken := [step for step in steps if self._taken(step)]:
                return min(taken)
            place = batches.stop * plan.global_batch
        return None

    def _next(self, group: str, number: int, start: int) -> int | None:
        """Return a group's first position from `start` on that a stream fills, in the epochs that were begun."""
        plan, stream = self.plan, self.plan.streams[group][number]
        for epoch in range(plan.epoch_at(group, start), self._last_epoch(group) + 1):
            own = np.arange(stream.first_place(epoch), stream.first_place(epoch + 1))
            if own.size <= _AT_ONCE:  # look up where the stream's positions went
                places = plan.places_of(group, epoch, number, own) if own.size else own
                if (later := places[places >= start]).size:
                    return int(later.min())
                continue
            end = plan.first_place(group, epoch + 1)  # a frequent stream is met soon
            for low in range(max(start, plan.first_place(group, epoch)), end, _AT_ONCE):
                places = np.arange(low, min(low + _AT_ONCE, end))
                mine = np.flatnonzero(plan.streams_at(group, places)[0] == number)
                if mine.size:
                    return low + int(mine[0])
        return None
