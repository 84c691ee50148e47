"""(step, slot, key, hash of tensors) through the real loaders, over combinations of ranks, workers and restores."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from griffon_shards.frozen_set import open_set
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.dry_read import RankSettings, ReadSample, read_steps
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY

from ..conftest import Run
from ..streams import keys_of, sequence

START, STOP = 37, 45
"""Steps around the end of the first epoch; then other variants come."""

SETTINGS = RankSettings(world_size=1, micro_batch=1, workers=0, start=START, stop=STOP, image_px=32, stall_s=60)

# Ranks, workers of each, micro-batch; a part each, as long as STEPS of it says, the last one to the end.
Part = tuple[int, int, int, int]
COMBINATIONS: dict[str, list[Part]] = {
    "1 rank, 1 worker": [(1, 1, 1, 99)],
    "1 rank, 3 workers": [(1, 3, 4, 99)],
    "2 ranks": [(2, 0, 1, 99)],
    "2 ranks, 1 worker": [(2, 1, 2, 99)],
    "3 ranks": [(3, 0, 2, 99)],
    "3 ranks, 3 workers": [(3, 3, 1, 99)],
    "4 ranks, 1 worker": [(4, 1, 4, 99)],
    "8 ranks, 1 worker": [(8, 1, 1, 99)],
    "8 ranks, restored as 3, 1 and 4": [(8, 0, 1, 2), (3, 1, 2, 2), (1, 0, 4, 2), (4, 1, 1, 99)],
    "restored at the epoch's end": [(2, 3, 1, 5), (2, 3, 1, 99)],
    "restored after it": [(4, 0, 2, 6), (1, 1, 2, 99)],
    "restored at every step": [(2, 0, 2, 1)] * (STOP - START),
}


@pytest.fixture(scope="module")
def roots(frozen_set: Path, variants_set: Path) -> list[Path]:
    return [variants_set, frozen_set]


def new_plan(roots: Sequence[Path]) -> Plan:
    return Plan([open_set(root) for root in roots], seed=4, global_batch=14, grouping="task", window=8)


@pytest.fixture(scope="module")
def expected(roots: list[Path]) -> list[ReadSample]:
    """All samples of all steps in order, read in one process."""
    plan = new_plan(roots)
    assert {plan.step(START).epoch, plan.step(STOP - 1).epoch} == {0, 1}
    samples = [sample for step in read_steps(plan, SETTINGS) for sample in step]
    assert [(sample.step, sample.slot, sample.key) for sample in samples] == sequence(plan, START, STOP)
    return samples


@pytest.mark.parametrize("parts", COMBINATIONS.values(), ids=COMBINATIONS)
def test_any_ranks_workers_and_restores_give_the_same_tensors(
    roots: list[Path], expected: list[ReadSample], parts: list[Part]
) -> None:
    read: list[ReadSample] = []
    done = START
    for world_size, workers, micro_batch, steps in parts:
        checkpoint = orjson.dumps(cursor_state(new_plan(roots), done))
        plan = new_plan(roots)
        start = restore_cursor(orjson.loads(checkpoint), plan)
        settings = replace(SETTINGS, world_size=world_size, workers=workers, micro_batch=micro_batch, start=start)
        stop = min(done + steps, STOP)
        for samples in read_steps(plan, settings):  # the loaders are told of more steps than are taken
            read += samples
            done += 1
            if done == stop:
                break
    assert read == expected


def test_variants_of_a_sample_are_other_tensors(roots: list[Path]) -> None:
    """Weight 3 shows all three renderings in one epoch, and the hash tells them apart."""
    plan = Plan([open_set(roots[0])], seed=4, global_batch=72, grouping="task", weights={"VISJ_shapes": "3"})
    i = next(n for n in range(plan.first_step(1)) if plan.step(n).group == "referring")
    settings = replace(SETTINGS, start=i, stop=i + 1)
    hashes: dict[str, set[str]] = {}
    for sample in next(iter(read_steps(plan, settings))):
        hashes.setdefault(sample.key, set()).add(sample.sha256)
    assert len(hashes) == 24
    assert sum(len(value) for value in hashes.values()) > 60  # a draw can give the same question and region twice


def test_dummies_are_never_read(roots: list[Path]) -> None:
    """More ranks than samples: the last ranks get dummies alone, and all samples still come once."""
    plan = Plan([open_set(root) for root in roots], seed=4, global_batch=3)
    (samples,) = read_steps(plan, replace(SETTINGS, world_size=5, micro_batch=2, start=0, stop=1))
    assert [sample.slot for sample in samples] == [0, 1, 2]
    assert DUMMY not in {sample.slot for sample in samples}
    assert [sample.key for sample in samples] == keys_of(plan, plan.step(0))


def test_the_command_gives_steps_and_slots_in_order(
    train_cli: Run, roots: list[Path], expected: list[ReadSample]
) -> None:
    options = (
        "--global-batch",
        14,
        "--seed",
        4,
        "--grouping",
        "task",
        "--window",
        8,
        "--from",
        START,
        "--image-px",
        32,
    )
    ranks = ("--world-size", 3, "--workers", 1, "--micro-batch", 2)
    result = train_cli("read", *roots, *options, *ranks, "--steps", STOP - START, "--json")
    lines = [orjson.loads(line) for line in result.stdout.splitlines()]
    assert [ReadSample(**line) for line in lines] == expected
    plain = train_cli("read", *roots, *options, "--workers", 0, "--profile")
    first = expected[:14]
    assert plain.stdout.splitlines() == [f"{item.step}  {item.slot}  {item.key}  {item.sha256}" for item in first]
    assert re.fullmatch(r"[\d-]+ [\d:]+ 14 samples in .*\n", plain.stderr), plain.stderr
