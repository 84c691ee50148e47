"""The ordered sequence of (step, slot, key) is the same over any ranks, micro-batches, restores and resizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson
import pytest

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.storage import Location
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.loader import rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY

from ..streams import sequence
from ..synthetic import Source, write_synthetic

STEPS = 200
WORLD_SIZES = (1, 2, 3, 4, 8)
MICRO_BATCHES = (1, 2, 4)
SOURCES = [
    Source(tag="LAZY_mixed", rows=120, pictured=lambda row: row % 3 > 0),
    Source(tag="DET", rows=200, weight="0.5"),
    Source(tag="REG", rows=170, weight="2"),
    Source(tag="VISJ", rows=70),
]
Sequence3 = list[tuple[int, int, str]]
"""Step, slot, key."""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    return write_synthetic(tmp_path_factory.mktemp("ranks") / "set", SOURCES, variants=3)


def new_plan(root: Location, global_batch: int) -> Plan:
    return Plan([open_set(root)], seed=2, global_batch=global_batch, grouping="task", window=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A plan's settings and the sequence that every run of it must give."""

    first: Plan
    whole: Sequence3

    @property
    def global_batch(self) -> int:
        return self.first.global_batch

    def plan(self) -> Plan:
        """The plan as a new process would make it."""
        return new_plan(self.first.sets[0].root, self.global_batch)

    def steps(self, start: int, stop: int) -> Sequence3:
        return self.whole[start * self.global_batch : stop * self.global_batch]


@pytest.fixture(scope="module", params=[7, 12], ids=lambda global_batch: f"G{global_batch}")
def order(request: pytest.FixtureRequest, frozen: FrozenSet) -> Order:
    """200 steps, over two ends of epochs and some."""
    plan = new_plan(frozen.root, request.param)
    epochs = {plan.step(i).epoch for i in range(STEPS)}
    assert epochs >= {0, 1, 2}
    return Order(first=plan, whole=sequence(plan, 0, STEPS))


def run_step(plan: Plan, number: int, world_size: int, micro_batch: int) -> Sequence3:
    """One step on all ranks, put together; all run the same micro-steps, and differ by one sample at most."""
    ranks = [rank_slots(plan, number, rank, world_size, micro_batch) for rank in range(world_size)]
    assert len({tuple(len(slots) for slots in rank) for rank in ranks}) == 1
    taken = [[slot for slots in rank for slot in slots if slot.row != DUMMY] for rank in ranks]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1
    samples = sorted((slot for rank in taken for slot in rank), key=lambda slot: slot.slot)
    assert [slot.slot for slot in samples] == list(range(plan.global_batch))
    return [(slot.step, slot.slot, plan.sets[slot.set_no].key(slot.row)) for slot in samples]


def run(plan: Plan, steps: Sequence[int], world_size: int, micro_batch: int) -> Sequence3:
    return [sample for step in steps for sample in run_step(plan, step, world_size, micro_batch)]


def restored(order: Order, steps_done: int) -> tuple[Plan, int]:
    """A new plan, and the step to continue with, by way of a checkpoint of the old."""
    state = orjson.dumps(cursor_state(order.first, steps_done))
    plan = order.plan()
    return plan, restore_cursor(orjson.loads(state), plan)


@pytest.mark.parametrize("micro_batch", MICRO_BATCHES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_any_ranks_and_micro_batches_give_the_same_sequence(order: Order, world_size: int, micro_batch: int) -> None:
    assert run(order.plan(), range(STEPS), world_size, micro_batch) == order.whole


def test_more_ranks_than_samples_give_the_same_sequence(order: Order) -> None:
    assert run(order.plan(), range(5), 13, 1) == order.steps(0, 5)


def test_restored_at_every_step_the_sequence_continues(order: Order) -> None:
    """Killed after each of 200 steps and gone on with on other ranks, the next steps are those that would have come."""
    for steps_done in range(STEPS):
        plan, start = restored(order, steps_done)
        world_size, micro_batch = WORLD_SIZES[steps_done % 5], MICRO_BATCHES[steps_done // 5 % 3]
        stop = min(start + 3, STEPS)
        assert run(plan, range(start, stop), world_size, micro_batch) == order.steps(steps_done, stop)


def test_restored_near_the_end_of_an_epoch_the_rest_is_the_same(order: Order) -> None:
    plan = order.plan()
    ends = [plan.first_step(epoch) for epoch in (1, 2)]
    for steps_done in [steps for end in ends for steps in (end - 1, end, end + 1)]:
        resumed, start = restored(order, steps_done)
        assert run(resumed, range(start, STEPS), 3, 2) == order.steps(steps_done, STEPS)


def chain(order: Order, world_sizes: Sequence[int], steps_each: int, ahead: int) -> Iterator[tuple[int, int, str]]:
    """A run that is resized again and again; each time, what was prefetched and never trained on is thrown away."""
    done = part = 0
    while done < STEPS:
        plan, start = restored(order, done)
        stop = min(start + steps_each + part % 3, STEPS)
        world_size = world_sizes[part % len(world_sizes)]
        yield from run(plan, range(start, stop), world_size, MICRO_BATCHES[part % 3])
        run(plan, range(stop, stop + ahead), world_size, 1)
        done, part = stop, part + 1


@pytest.mark.parametrize(
    ("world_sizes", "steps_each"), [((8, 3, 1, 4), 50), ((8, 3, 1, 4), 1), ((1, 2, 3, 4, 8), 7), ((4, 8), 23)]
)
def test_chains_of_resizes_give_the_same_sequence(order: Order, world_sizes: tuple[int, ...], steps_each: int) -> None:
    assert list(chain(order, world_sizes, steps_each, ahead=3)) == order.whole
