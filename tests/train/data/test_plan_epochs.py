"""Every epoch shows every row as often as its weight says, whatever the batch size, grouping and number of sets."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from griffon_train.data.plan import Plan

from ..streams import Passes, batches_of, by_epoch, shown, steps_of_epoch
from ..synthetic import Source, write_synthetic

EPOCHS = 7


def check_epochs(plan: Plan, groups: dict[str, list[Passes]], epochs: int = EPOCHS) -> None:
    assert list(plan.groups) == list(groups)
    for group, batches in batches_of(plan, groups, epochs).items():
        assert all(len(shown(step)) == plan.global_batch for step in batches)
        per_epoch = by_epoch(batches, groups[group], epochs)
        everything = {(passes.set_no, row) for passes in groups[group] for row in passes.rows}
        assert {sample[:2] for samples in per_epoch for sample in samples} <= everything
        for passes in groups[group]:
            passes.check(per_epoch)


@pytest.mark.parametrize("variants", [1, 3])
@pytest.mark.parametrize("weight", ["0.3", "0.5", "1", "2", "1/3", "7/2"])
def test_a_source_comes_as_often_as_its_weight_says(tmp_path: Path, weight: str, variants: int) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=53, weight=weight)], variants=variants)
    passes = Passes(set_no=0, rows=range(53), weight=Fraction(weight), variants=variants)
    check_epochs(Plan([frozen], seed=3, global_batch=8), {"all": [passes]})


def test_half_of_a_source_comes_in_one_epoch_and_the_other_half_in_the_next(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=40, weight="0.5")])
    plan = Plan([frozen], seed=0, global_batch=4)
    first, second, third = (
        {row for step in steps_of_epoch(plan, epoch) for _, row, _ in shown(step)} for epoch in range(3)
    )
    assert (len(first), first | second, first & second) == (20, set(range(40)), set())
    assert third not in (first, second)  # the next pass is shuffled again


def test_a_weight_of_two_shows_every_row_twice_in_every_epoch_in_other_variants(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=30, weight="2")], variants=3)
    plan = Plan([frozen], seed=0, global_batch=6)
    for epoch, variants in enumerate([(0, 1), (2, 0), (1, 2)]):
        seen = Counter(sample for step in steps_of_epoch(plan, epoch) for sample in shown(step))
        assert seen == Counter((0, row, variant) for row in range(30) for variant in variants)


@pytest.mark.parametrize("grouping", ["none", "modality", "task"])
@pytest.mark.parametrize("global_batch", [1, 7, 500])
def test_several_sets_of_all_tasks_and_weights(tmp_path: Path, grouping: str, global_batch: int) -> None:
    """500 is more than an epoch has: then a batch is of several epochs, and some epochs have no step at all."""
    first = [
        Source(tag="LAZY_talk", rows=23, weight="0.3", pictured=lambda _: False),
        Source(tag="LAZY_mixed", rows=31, weight="1/3", pictured=lambda row: row % 3 > 0),
        Source(tag="DET", rows=17, weight="2"),
        Source(tag="VISJ", rows=11),
    ]
    second = [
        Source(tag="REG", rows=1),
        Source(tag="VG", rows=29, weight="0.5"),
        Source(tag="RANDDET", rows=2, weight="1/7"),
    ]
    sets = [write_synthetic(tmp_path / "a", first, variants=3), write_synthetic(tmp_path / "b", second)]
    talk, det, visj = (
        Passes(set_no=0, rows=rows, weight=Fraction(weight), variants=3)
        for rows, weight in ((range(23), "0.3"), (range(54, 71), "2"), (range(71, 82), "1"))
    )
    mixed, mixed_text, mixed_pictured = (
        Passes(
            set_no=0, rows=[row for row in range(23, 54) if (row - 23) % 3 in kinds], weight=Fraction(1, 3), variants=3
        )
        for kinds in ((0, 1, 2), (0,), (1, 2))
    )
    others = [
        Passes(set_no=1, rows=rows, weight=Fraction(weight))
        for rows, weight in ((range(1), "1"), (range(1, 30), "0.5"), (range(30, 32), "1/7"))
    ]
    groups = {
        "none": {"all": [talk, mixed, det, visj, *others]},
        "modality": {"text": [talk, mixed_text], "image": [mixed_pictured, det, visj, *others]},
        "task": {
            "text": [talk, mixed_text],
            "general": [mixed_pictured],
            "localization": [det, *others],
            "referring": [visj],
        },
    }
    check_epochs(Plan(sets, seed=5, global_batch=global_batch, grouping=grouping), groups[grouping], 9)


def test_a_source_of_one_row(tmp_path: Path) -> None:
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=1, weight="0.3")], variants=3)
    passes = Passes(set_no=0, rows=range(1), weight=Fraction("0.3"), variants=3)
    check_epochs(Plan([frozen], seed=0, global_batch=2), {"all": [passes]}, 40)


def test_weights_given_to_the_plan_replace_those_of_the_locks(tmp_path: Path) -> None:
    sources = [Source(tag="REG", rows=20, weight="3"), Source(tag="VG", rows=30)]
    frozen = write_synthetic(tmp_path / "set", sources)
    plan = Plan([frozen], seed=0, global_batch=5, weights={"REG": "0.5"})
    reg = Passes(set_no=0, rows=range(20), weight=Fraction(1, 2))
    vg = Passes(set_no=0, rows=range(20, 50), weight=Fraction(1))
    check_epochs(plan, {"all": [reg, vg]})


def test_a_far_epoch_is_as_exact_as_the_first(tmp_path: Path) -> None:
    """Epochs of a weight without an exact binary fraction, beyond what a float can count."""
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=30, weight="1/3")], variants=7)
    plan = Plan([frozen], seed=0, global_batch=10)
    far = 3 * 10**16
    steps = [plan.step(i) for i in range(far, far + 3)]
    assert [step.epoch - far for step in steps] == [0, 1, 2]
    assert sorted(sample for step in steps for sample in shown(step)) == [(0, row, 10**16 % 7) for row in range(30)]


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [
        (1, 10),
        (1.0, 10),
        (3, 30),
        (0.5, 5),
        (0.25, 2),
        (0.3, 3),
        (2.7, 27),
        (1e-9, 1),
        (0.96, 10),
        (1.04, 10),
        (1.06, 11),
    ],
)
def test_a_part_of_an_epoch_ends_at_the_nearest_step(tmp_path: Path, epochs: float, steps: int) -> None:
    """It has at least one step."""
    plan = Plan([write_synthetic(tmp_path / "set", [Source(tag="REG", rows=40)])], seed=0, global_batch=4)
    assert plan.steps_of(epochs) == steps


def test_a_part_of_a_later_epoch_is_a_part_of_its_own_steps(tmp_path: Path) -> None:
    """Epochs have 7 or 8 steps here: 30 rows by 4."""
    plan = Plan([write_synthetic(tmp_path / "set", [Source(tag="REG", rows=30)])], seed=0, global_batch=4)
    assert [plan.first_step(epoch) for epoch in range(4)] == [0, 8, 15, 23]
    assert [plan.steps_of(epochs) for epochs in (0.5, 1.5, 2.5)] == [4, 12, 19]


def test_the_steps_of_an_epoch_are_counted_before_it_runs(tmp_path: Path) -> None:
    sources = [Source(tag="LAZY", rows=40, pictured=lambda row: row < 11), Source(tag="VISJ", rows=9, weight="0.7")]
    plan = Plan([write_synthetic(tmp_path / "set", sources)], seed=0, global_batch=4, grouping="task")
    for epoch in range(5):
        steps = steps_of_epoch(plan, epoch)
        assert plan.first_step(epoch) == steps[0].number
        assert plan.steps_by_group(epoch) == {**dict.fromkeys(plan.groups, 0), **Counter(step.group for step in steps)}
