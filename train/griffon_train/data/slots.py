"""What a rank asks its reading processes for: the plan's steps, shared out to it in micro-batches of slots."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import Sampler

from griffon_train.data.rank_split import DUMMY, split_slots
from griffon_train.data.sequential_order import StepOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A sample's place in a global batch, and which sample stands there; a row of -1 is a dummy."""

    step: int
    slot: int
    set_no: int
    row: int
    variant: int


def rank_slots(plan: StepOrder, number: int, rank: int, world_size: int, micro_batch: int) -> list[list[Slot]]:
    """The micro-batches of one rank in one step."""
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
    """What a worker is asked for in one message.

    Attributes:
        slots: a micro-batch to read, or none.
        ahead: a micro-batch of the next step, of which only the targets are counted; or none.
    """

    slots: list[Slot]
    ahead: list[Slot]


class ReadRequests(Sampler[ReadRequest]):
    """The micro-batches of one rank from a step on, without end or up to a step; those of skipped steps are left out.

    With `counted`, targets are counted a step ahead: first those of the first step, then with each micro-batch those of
    its like in the next step, so that all workers have as much to do.
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
