"""Requests from a rank to its worker processes: its part of the plan's steps, in micro-batches of slots."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from griffon_train.data.rank_split import DUMMY, split_slots
from griffon_train.data.sequential_order import StepOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A position in a global batch and the sample at it; a row of -1 is a dummy."""

    step: int
    slot: int
    set_no: int
    row: int
    variant: int


def rank_slots(plan: StepOrder, number: int, rank: int, world_size: int, micro_batch: int) -> list[list[Slot]]:
    """Return the micro-batches of one rank in one step."""
    step = plan.step(number)
    sets, rows, variants = step.sets.tolist(), step.rows.tolist(), step.variants.tolist()
    return [
        [
            Slot(step=number, slot=slot, set_no=sets[slot], row=rows[slot], variant=variants[slot])
            if slot != DUMMY
            else Slot(step=number, slot=DUMMY, set_no=0, row=DUMMY, variant=0)
            for slot in slots
        ]
        for slots in split_slots(step.lengths, world_size, micro_batch)[rank].tolist()
    ]


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request to a worker.

    Attributes:
        slots: a micro-batch to read, or empty.
        ahead: a micro-batch of the next step whose targets are counted, or empty.
    """

    slots: list[Slot]
    ahead: list[Slot]


class ReadRequests(Sampler[ReadRequest]):
    """Yields the read requests of one rank, in order: one per micro-batch of the given steps.

    With `counted`, targets are counted one step ahead: first those of the first step, then with each micro-batch those
    of the corresponding one in the next step, so that all workers do the same amount of work.
    """

    def __init__(
        self, slots_of: Callable[[int], list[list[Slot]]], steps: Callable[[], Iterator[int]], *, counted: bool
    ) -> None:
        self._slots_of, self._steps, self._counted = slots_of, steps, counted

    def __iter__(self) -> Iterator[ReadRequest]:
        steps = self._steps()
        slots = self._next(steps)
        if self._counted:
            yield from (ReadRequest([], ahead) for ahead in slots)
        while slots:
            following = self._next(steps)
            aheads = following if self._counted and following else [[]] * len(slots)
            yield from map(ReadRequest, slots, aheads)
            slots = following

    def _next(self, steps: Iterator[int]) -> list[list[Slot]]:
        return next(map(self._slots_of, steps), [])
