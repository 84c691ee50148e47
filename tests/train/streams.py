"""The order that a plan gives, as plain lists, and the one that it must give, computed independently."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, takewhile
from math import floor

from griffon_train.data.plan import Plan, Step

Shown = tuple[int, int, int]
"""Set, row, variant."""

_FAR = 10**4  # more epochs than a test comes to


def shown(step: Step) -> list[Shown]:
    """The samples of a step in order of their slots."""
    return list(zip(step.sets.tolist(), step.rows.tolist(), step.variants.tolist(), strict=True))


def keys_of(plan: Plan, step: Step) -> list[str]:
    return [plan.sets[set_no].key(row) for set_no, row, _ in shown(step)]


def sequence(plan: Plan, start: int, stop: int) -> list[tuple[int, int, str]]:
    """(step, slot, key) in order, straight from the plan."""
    return [(i, slot, key) for i in range(start, stop) for slot, key in enumerate(keys_of(plan, plan.step(i)))]


def steps_of_epoch(plan: Plan, epoch: int) -> list[Step]:
    """All steps of an epoch, found by walking over them."""
    first = next(number for number in count() if plan.step(number).epoch >= epoch)
    return list(takewhile(lambda step: step.epoch == epoch, map(plan.step, count(first))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The rows of one source that are of one group, and how often they are to be shown."""

    set_no: int
    rows: Sequence[int]
    weight: Fraction
    variants: int = 1

    def first_place(self, epoch: int) -> int:
        """How many samples of it all epochs before this one show."""
        return floor(epoch * self.weight * len(self.rows))

    def check(self, epochs: Sequence[Sequence[Shown]]) -> None:
        """Every epoch shows as many samples as it should, every pass each row once, and pass p variant p mod K."""
        rows = set(self.rows)
        so_far: Counter[tuple[int, int]] = Counter()
        for epoch, samples in enumerate(epochs):
            now = Counter((row, variant) for set_no, row, variant in samples if set_no == self.set_no and row in rows)
            end = self.first_place(epoch + 1)
            assert now.total() == end - self.first_place(epoch)
            so_far += now
            whole, begun = divmod(end, len(rows))
            once_more = {
                (row, variant): so_far[row, variant] - len(range(variant, whole, self.variants))
                for row in rows
                for variant in range(self.variants)
            }
            assert so_far.keys() <= once_more.keys()
            assert set(once_more.values()) <= {0, 1}
            assert sum(once_more.values()) == begun
            assert {variant for (_, variant), times in once_more.items() if times} <= {whole % self.variants}


def first_place(passes: Sequence[Passes], epoch: int) -> int:
    """Where in its group's stream an epoch begins."""
    return sum(passe.first_place(epoch) for passe in passes)


def batches_of(plan: Plan, groups: Mapping[str, Sequence[Passes]], epochs: int) -> dict[str, list[Step]]:
    """The batches of each group in order, until all groups have shown some epochs.

    Checks on the way that steps bear their numbers, epochs follow each other, and each batch belongs to the epoch of
    its first place.
    """
    streams: dict[str, list[Step]] = {group: [] for group in groups}
    before = 0
    for number in count():
        if all(len(streams[group]) * plan.global_batch >= first_place(groups[group], epochs) for group in groups):
            break
        step = plan.step(number)
        position = len(streams[step.group]) * plan.global_batch
        at = bisect_right(range(_FAR), position, key=lambda epoch: first_place(groups[step.group], epoch)) - 1
        assert (step.number, step.epoch) == (number, at)
        assert step.epoch >= before
        before = step.epoch
        streams[step.group].append(step)
    return streams


def by_epoch(batches: Sequence[Step], passes: Sequence[Passes], epochs: int) -> list[list[Shown]]:
    """The samples of a group's batches, one batch after the other, cut where its epochs end."""
    stream = [sample for step in batches for sample in shown(step)]
    return [stream[first_place(passes, epoch) : first_place(passes, epoch + 1)] for epoch in range(epochs)]
