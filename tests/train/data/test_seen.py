"""What a run has used, by inverting the plan, agrees with a walk over every step of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from griffon_train.data.plan import Plan
from griffon_train.data.seen import Seen, Showing
from griffon_train.data.steering import Steering

from ..synthetic import Source, write_synthetic

FIRST = [
    Source(tag="LAZY_talk", rows=43, weight="0.3", pictured=lambda _: False),
    Source(tag="LAZY_mixed", rows=231, weight="1/3", pictured=lambda row: row % 3 > 0),
    Source(tag="DET", rows=617, weight="2"),
    Source(tag="VISJ", rows=111),
]
SECOND = [
    Source(tag="REG", rows=1),
    Source(tag="DET", rows=429, weight="0.37"),
    Source(tag="RANDDET", rows=2, weight="1/7"),
]
KEYS = 200
EPOCHS = 3


def plan_of(folder: Path, grouping: str, window: int, global_batch: int) -> Plan:
    sets = [write_synthetic(folder / "a", FIRST, variants=3), write_synthetic(folder / "b", SECOND)]
    return Plan(sets, seed=5, global_batch=global_batch, grouping=grouping, window=window)


def walked(plan: Plan, stop: int, steering: Steering) -> dict[tuple[int, int], list[Showing]]:
    """Every use of every row, found by looking at every step."""
    uses: dict[tuple[int, int], list[Showing]] = {}
    for step in (plan.step(number) for number in range(stop) if number not in steering):
        for slot, row in enumerate(zip(step.sets.tolist(), step.rows.tolist(), strict=True)):
            showing = Showing(step=step.number, epoch=step.epoch, slot=slot, variant=int(step.variants[slot]))
            uses.setdefault(row, []).append(showing)
    return uses


@pytest.mark.parametrize(
    ("grouping", "window", "global_batch", "skipped"),
    [
        ("none", 32, 8, []),
        ("none", 1, 7, ["0:3", "90:120"]),
        ("modality", 4, 5, ["17:18"]),
        ("task", 32, 6, ["1:2", "200:203"]),
        ("task", 3, 450, []),  # a batch is of several epochs
    ],
)
def test_it_agrees_with_a_walk_over_all_steps(
    tmp_path: Path, grouping: str, window: int, global_batch: int, skipped: list[str]
) -> None:
    plan = plan_of(tmp_path, grouping, window, global_batch)
    steering = Steering.of(skipped, [])
    rows = [(set_no, row) for set_no, frozen in enumerate(plan.sets) for row in range(len(frozen))]
    chosen = [rows[at] for at in np.random.default_rng(1).choice(len(rows), KEYS, replace=False)]
    sources = [(set_no, source.tag) for set_no, frozen in enumerate(plan.sets) for source in frozen.lock.sources]
    end = plan.first_step(EPOCHS)
    everything = walked(plan, end, steering)
    for stop in (0, 1, end // 3 + 1, plan.first_step(1), end - 1, end):
        seen = Seen(plan, stop, steering)
        uses = {row: [each for each in of_row if each.step < stop] for row, of_row in everything.items()}
        if stop in (end, end // 3 + 1):
            assert {row: seen.of_row(*row) for row in chosen} == {row: uses.get(row, []) for row in chosen}
        counts: Counter[tuple[int, str]] = Counter()
        firsts: dict[tuple[int, str], int] = {}
        for (set_no, row), showings in uses.items():
            source = set_no, plan.sets[set_no].key(row).rpartition("-")[0]
            counts[source] += len(showings)
            if showings:
                firsts[source] = min(firsts.get(source, end), showings[0].step)
        expected = [(*source, counts[source], firsts.get(source)) for source in sources]
        assert [(each.set_no, each.tag, each.shown, each.first) for each in seen.of_sources()] == expected
        assert seen.skipped == sum(step in steering for step in range(stop))


def test_the_last_steps_of_a_group(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "task", 32, 6)
    steering = Steering.of(["100:110"], [])
    for group in (*plan.groups, None):
        taken = [plan.step(number) for number in range(110) if number not in steering]
        expected = [step.number for step in taken if group in (None, step.group)][-5:]
        assert [step.number for step in Seen(plan, 110, steering).last_steps(5, group)] == expected
    assert Seen(plan, 0, steering).last_steps(5) == []
