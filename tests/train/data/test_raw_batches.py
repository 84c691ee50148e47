"""Raw samples come in the plan's order, whole, whatever reads them; what cannot be read is named."""

from pathlib import Path

import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError
from griffon_train.data.loader import rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.raw_batches import raw_batches


@pytest.mark.parametrize("threads", [1, 3])
def test_the_bytes_are_those_of_the_plan_in_its_order(frozen_set: Path, threads: int) -> None:
    plan = Plan([open_set(frozen_set)], seed=3, global_batch=7)
    for rank in range(2):
        actual = list(raw_batches(plan, rank=rank, world_size=2, micro_batch=3, threads=threads, start=2, stop=9))
        expected = [
            [slot for slot in slots if slot.row >= 0]
            for step in range(2, 9)
            for slots in rank_slots(plan, step, rank, 2, 3)
        ]
        assert [[slot for slot, _ in batch] for batch in actual] == expected
        assert all(raw == plan.sets[0].raw(slot.row) for batch in actual for slot, raw in batch)


def test_a_damaged_sample_is_named_and_what_came_before_is_given(copy_of_set: Path) -> None:
    frozen = open_set(copy_of_set)
    plan = Plan([frozen], seed=0, global_batch=4)
    row = int(plan.step(3).rows[2])
    entry = frozen.index[row]
    shard = copy_of_set / frozen.lock.shards[int(entry["shard"])].name
    with shard.open("r+b") as file:
        file.seek(int(entry["offset"]) + 600)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    seen = 0
    with pytest.raises(DataError, match=f"{shard.name}, sample {frozen.key(row)}: damaged"):
        for _ in raw_batches(plan, micro_batch=4, start=0, stop=10):
            seen += 1
    assert seen == 3
