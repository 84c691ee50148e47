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
            for group, stream in self.plan.streams.items()
            for number, source in enumerate(stream.sources)
            if source.set_no == set_no
            for place, variant in self._places_of_row(group, number, row)
        ]
        return sorted(
            (showing for showing in showings if self._taken(showing.step)), key=lambda each: (each.step, each.slot)
        )

    def of_sources(self) -> list[SourceShowings]:
        """Return the use of every source that has samples, in the order of the sets and their sources."""
        shown: dict[tuple[int, str], int] = {}
        firsts: dict[tuple[int, str], list[int]] = {}
        for group, stream in self.plan.streams.items():
            for number, (source, times) in enumerate(zip(stream.sources, self._counts(group).tolist(), strict=True)):
                name = source.set_no, source.tag
                shown[name] = shown.get(name, 0) + times
                first = self._first(group, number)
                firsts.setdefault(name, []).extend([] if first is None else [first])
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
        return self.plan.streams[group].epoch_at(batches * self.plan.global_batch - 1) if batches else -1

    def _places_of_row(self, group: str, number: int, row: int) -> Iterator[tuple[int, int]]:
        """Yield the positions of a row in a group's stream, each with its variant, in all epochs that were begun."""
        stream = self.plan.streams[group]
        source, last = stream.sources[number], self._last_epoch(group)
        for pass_no in count():
            place = source.place_of(row, pass_no, self.plan.seed)
            if place is None or source.epoch_at(pass_no * source.count) > last:
                return
            epoch = source.epoch_at(place)
            if epoch <= last:
                of_group = int(stream.places_of(epoch, number, np.array([place]))[0])
                yield of_group, pass_no % source.variants

    def _showing(self, group: str, place: int, variant: int) -> Showing:
        plan = self.plan
        batches = plan.window_of(group, place // plan.global_batch)
        ((within, slot),) = np.argwhere(plan.window_places(group, batches) == place).tolist()
        batch = batches.start + within
        epoch = plan.streams[group].epoch_at(batch * plan.global_batch)
        return Showing(step=plan.step_of(group, batch), epoch=epoch, slot=slot, variant=variant)

    def _counts(self, group: str) -> NDArray[np.int64]:
        """Return how often the batches of a group before `stop` use each of its sources, shape [sources]."""
        plan, stream, batches = self.plan, self.plan.streams[group], self._batches[group]
        window = plan.window_of(group, batches)
        end = window.start * plan.global_batch  # every batch before it is consumed, however it was sorted
        epoch = stream.epoch_at(end)
        first, following = stream.first_place(epoch), stream.first_place(epoch + 1)
        if end - first <= following - end:
            counts = self._starts(group, epoch) + self._used(group, np.arange(first, end))
        else:
            counts = self._starts(group, epoch + 1) - self._used(group, np.arange(end, following))
        begun = plan.window_places(group, window)[: batches - window.start] if batches > window.start else np.array([])
        return counts + self._used(group, np.sort(begun.reshape(-1)))

    def _starts(self, group: str, epoch: int) -> NDArray[np.int64]:
        return np.array([source.first_place(epoch) for source in self.plan.streams[group].sources])

    def _used(self, group: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
        stream = self.plan.streams[group]
        if not places.size:
            return np.zeros(len(stream.sources), np.int64)
        return np.bincount(stream.sources_at(places)[0], minlength=len(stream.sources))

    def _first(self, group: str, number: int) -> int | None:
        """Return the first step that was taken and uses a source."""
        plan, stream, place = self.plan, self.plan.streams[group], 0
        while (found := self._next(group, number, place)) is not None:
            batches = plan.window_of(group, found // plan.global_batch)
            places = plan.window_places(group, batches).reshape(-1)
            ascending = np.argsort(places)
            is_used = np.empty(places.size, np.bool_)
            is_used[ascending] = stream.sources_at(places[ascending])[0] == number
            using = np.flatnonzero(is_used.reshape(len(batches), -1).any(axis=1)).tolist()
            steps = [plan.step_of(group, batches.start + within) for within in using]
            if taken := [step for step in steps if self._taken(step)]:
                return min(taken)
            place = batches.stop * plan.global_batch
        return None

    def _next(self, group: str, number: int, start: int) -> int | None:
        """Return a group's first position from `start` on that a source fills, in the epochs that were begun."""
        stream = self.plan.streams[group]
        source = stream.sources[number]
        for epoch in range(stream.epoch_at(start), self._last_epoch(group) + 1):
            own = np.arange(source.first_place(epoch), source.first_place(epoch + 1))
            if own.size <= _AT_ONCE:  # look up where the source's positions went
                places = stream.places_of(epoch, number, own) if own.size else own
                if (later := places[places >= start]).size:
                    return int(later.min())
                continue
            end = stream.first_place(epoch + 1)  # a frequent source is met soon
            for low in range(max(start, stream.first_place(epoch)), end, _AT_ONCE):
                places = np.arange(low, min(low + _AT_ONCE, end))
                mine = np.flatnonzero(stream.sources_at(places)[0] == number)
                if mine.size:
                    return low + int(mine[0])
        return None
