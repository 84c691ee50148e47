"""Batches: of one group, of like lengths, shuffled, and another order for whatever the order depends on."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import pytest

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.index import INDEX_NAME
from griffon_shards.support.errors import SettingsError
from griffon_train.data.padding_report import epoch_report, merge_reports
from griffon_train.data.plan import Plan, Step

from ..streams import Passes, batches_of, first_place, keys_of, sequence, shown, steps_of_epoch
from ..synthetic import Source, write_synthetic

SOURCES = [
    Source(tag="LAZY_mixed", rows=90, pictured=lambda row: row % 3 > 0),
    Source(tag="DET", rows=150, chars=lambda row: 400 + row * 7919 % 4999),
    Source(tag="REG", rows=101, weight="2"),
    Source(tag="VISJ", rows=60),
]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    return write_synthetic(tmp_path_factory.mktemp("batches") / "set", SOURCES)


def batch_sets(steps: Sequence[Step]) -> list[tuple[tuple[int, int, int], ...]]:
    """The batches without regard to the order in each."""
    return [tuple(sorted(shown(step))) for step in steps]


def group_of(frozen: FrozenSet, row: int, grouping: str) -> str:
    task, has_image = frozen.key(row).partition("-")[0].partition("_")[0], bool(frozen.index["has_image"][row])
    if grouping == "modality":
        return "image" if has_image else "text"
    if task == "LAZY":
        return "general" if has_image else "text"
    return "referring" if task == "VISJ" else "localization"


@pytest.mark.parametrize(
    ("grouping", "groups"),
    [
        ("none", ("all",)),
        ("modality", ("text", "image")),
        ("task", ("text", "general", "localization", "referring")),
    ],
)
def test_every_batch_is_of_one_group(frozen: FrozenSet, grouping: str, groups: tuple[str, ...]) -> None:
    plan = Plan([frozen], seed=1, global_batch=8, grouping=grouping)
    steps = [plan.step(i) for i in range(plan.first_step(3))]
    assert plan.groups == groups
    assert {step.group for step in steps} == set(groups)
    if grouping != "none":
        for step in steps:
            assert {group_of(frozen, row, grouping) for _, row, _ in shown(step)} == {step.group}


def test_groups_without_rows_are_skipped(tmp_path: Path) -> None:
    talk = write_synthetic(tmp_path / "a", [Source(tag="LAZY", rows=9, pictured=lambda _: False)])
    seen = write_synthetic(tmp_path / "b", [Source(tag="LAZY", rows=9), Source(tag="VISJ", rows=9)])
    orders = ([talk], [seen], [talk, seen], [seen, talk])
    groups = [Plan(sets, seed=0, global_batch=2, grouping="task").groups for sets in orders]
    assert groups == [("text",), ("general", "referring"), *[("text", "general", "referring")] * 2]


def test_the_groups_of_an_epoch_take_turns_in_shuffled_order(tmp_path: Path) -> None:
    """The group changes as often as by chance, and each epoch has another order."""
    sources = [Source(tag=tag, rows=160) for tag in ("LAZY", "DET", "VISJ")]
    plan = Plan([write_synthetic(tmp_path / "set", sources)], seed=1, global_batch=8, grouping="task")
    labels = [[step.group for step in steps_of_epoch(plan, epoch)] for epoch in range(3)]
    for order in labels:
        assert Counter(order) == {"general": 20, "localization": 20, "referring": 20}
        changes = sum(before != after for before, after in pairwise(order))
        assert abs(changes - 40) < 4 * (60 * 2 / 9) ** 0.5
    assert len({tuple(order) for order in labels}) == 3


@pytest.mark.parametrize("grouping", ["none", "task"])
def test_a_window_is_the_same_samples_sorted_by_length(frozen: FrozenSet, grouping: str) -> None:
    """Whole batches of an epoch, 4 at a time, hold what they would without sorting, and no two overlap in length.

    Where an epoch has few batches a window is an eighth of them, or sorting would cut the same batches again.
    """
    size, epochs = 8, 3
    plan, unsorted = (Plan([frozen], seed=1, global_batch=size, grouping=grouping, window=item) for item in (4, 1))
    passes = {group: group_passes(frozen, group) for group in plan.groups}
    batches, fallen = (batches_of(item, passes, epochs) for item in (plan, unsorted))
    lengths = set()
    for group, epoch in product(plan.groups, range(epochs)):
        first, end = (first_place(passes[group], item) for item in (epoch, epoch + 1))
        whole = range(-(-first // size), end // size)
        window = min(4, max(1, len(whole) // 8))
        for start in range(whole.start, whole.stop, window):
            mine = slice(start, min(start + window, whole.stop))
            lengths.add(len(batches[group][mine]))
            assert samples_of(batches[group][mine]) == samples_of(fallen[group][mine])
            ranges = sorted((int(step.lengths.min()), int(step.lengths.max())) for step in batches[group][mine])
            assert all(before[1] <= after[0] for before, after in pairwise(ranges))
    assert len(lengths) > 1  # the last window of an epoch is smaller


def samples_of(steps: Sequence[Step]) -> Counter[tuple[int, int, int]]:
    return Counter(sample for step in steps for sample in shown(step))


def group_passes(frozen: FrozenSet, group: str) -> list[Passes]:
    result = []
    for source in SOURCES:
        rows = frozen.rows_of_source(source.tag)
        mine = rows if group == "all" else [row for row in rows if group_of(frozen, row, "task") == group]
        result.append(Passes(set_no=0, rows=mine, weight=Fraction(source.weight)))
    return [passes for passes in result if passes.rows]


def test_the_batches_of_a_window_are_not_in_order_of_length(frozen: FrozenSet) -> None:
    steps = steps_of_epoch(Plan([frozen], seed=1, global_batch=8, window=1000), 0)[:-1]
    assert len(steps) > 50
    rising = sum(before.lengths[0] < after.lengths[0] for before, after in pairwise(steps))
    assert abs(rising - (len(steps) - 1) / 2) < 4 * ((len(steps) + 1) / 12) ** 0.5


def test_a_batch_across_two_epochs_is_not_sorted(tmp_path: Path) -> None:
    """Epoch 0 is 83 samples of an order that repeats nothing; batch 10 holds its last 3 and then 5 of epoch 1."""
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=83)])
    plans = [Plan([frozen], seed=1, global_batch=8, window=window) for window in (1, 4, 32)]
    straddling = [plan.step(10) for plan in plans]
    assert [step.epoch for step in straddling] == [0, 0, 0]
    assert straddling[0].rows.tolist() == straddling[1].rows.tolist() == straddling[2].rows.tolist()
    assert straddling[0].lengths.tolist() != sorted(straddling[0].lengths.tolist())
    before = {row for i in range(10) for row in plans[0].step(i).rows.tolist()}
    assert set(straddling[0].rows.tolist()[:3]) == set(range(83)) - before
    after = {row for i in range(11, 20) for row in plans[0].step(i).rows.tolist()}
    assert not after & set(straddling[0].rows.tolist()[3:])


def test_lengths_are_of_the_rows_that_stand_there(frozen: FrozenSet) -> None:
    plan = Plan([frozen], seed=1, global_batch=8, grouping="task")
    for i in range(20):
        step = plan.step(i)
        entries = frozen.index[step.rows]
        pictures = [1369 if has_image else 0 for has_image in entries["has_image"].tolist()]
        text = [-(-chars // 4) for chars in entries["text_chars"].tolist()]
        assert step.lengths.tolist() == [sum(pair) for pair in zip(pictures, text, strict=True)]


def test_sorting_in_windows_and_grouping_save_padding(frozen: FrozenSet) -> None:
    waste = [
        merge_reports(epoch_report(Plan([frozen], seed=1, global_batch=8, grouping=grouping, window=window), 0)).waste
        for grouping, window in (("none", 1), ("none", 32), ("task", 32))
    ]
    assert waste[0] > 2 * waste[1] > 0
    assert waste[2] < waste[0] / 4


@pytest.mark.parametrize("window", [4, 8, 32])
@pytest.mark.parametrize(("rows", "global_batch"), [(160, 8), (203, 20), (800, 8)])
def test_two_epochs_share_no_batch(tmp_path: Path, rows: int, global_batch: int, window: int) -> None:
    """Not even if all lengths differ and a window could hold the whole epoch."""
    frozen = write_synthetic(tmp_path / "set", [Source(tag="REG", rows=rows, chars=lambda row: 40 + 4 * row)])
    plan = Plan([frozen], seed=1, global_batch=global_batch, window=window)
    batches = batch_sets([plan.step(i) for i in range(plan.first_step(4))])
    assert len(set(batches)) == len(batches) >= 40


def test_the_order_depends_on_seed_and_sets_and_their_order(tmp_path: Path) -> None:
    sources = [Source(tag="REG", rows=50), Source(tag="DET", rows=50)]
    first, second = (write_synthetic(tmp_path / content, sources, content=content) for content in "12")
    orders = [
        [keys_of(plan, plan.step(i)) for i in range(4)]
        for plan in (
            Plan([first], seed=0, global_batch=5),
            Plan([first], seed=1, global_batch=5),
            Plan([second], seed=0, global_batch=5),
            Plan([first, second], seed=0, global_batch=5),
            Plan([second, first], seed=0, global_batch=5),
        )
    ]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_every_setting_of_the_order_is_in_the_digest(frozen: FrozenSet, tmp_path: Path) -> None:
    other = write_synthetic(tmp_path / "other", SOURCES, content="1")
    plain = {"seed": 1, "global_batch": 8, "grouping": "task", "window": 4}
    digests = [Plan([frozen], **plain).digest]  # type: ignore[arg-type]
    for change in ({"seed": 2}, {"global_batch": 9}, {"grouping": "none"}, {"window": 5}, {"weights": {"DET": "0.5"}}):
        digests.append(Plan([frozen], **{**plain, **change}).digest)  # type: ignore[arg-type]
    digests += [Plan(sets, **plain).digest for sets in ([other], [frozen, other], [other, frozen])]  # type: ignore[arg-type]
    assert len(set(digests)) == len(digests)
    same = Plan([FrozenSet(frozen.root)], weights={"REG": "4/2", "DET": "1.0"}, **plain)  # type: ignore[arg-type]
    assert same.digest == digests[0]


def test_a_step_is_the_same_alone_as_after_all_others(frozen: FrozenSet) -> None:
    plan = Plan([frozen], seed=1, global_batch=7, grouping="task")
    in_order = sequence(plan, 0, 150)
    backwards = [sequence(plan, i, i + 1) for i in reversed(range(150))]
    assert in_order == [slot for step in reversed(backwards) for slot in step]
    for i in range(0, 150, 11):
        alone = Plan([frozen], seed=1, global_batch=7, grouping="task")
        assert sequence(alone, i, i + 1) == in_order[i * 7 : i * 7 + 7]


def test_a_plan_opens_no_shard(frozen: FrozenSet) -> None:
    assert isinstance(frozen.root, Path)
    assert [path.name for path in sorted(frozen.root.iterdir())] == ["griffon.lock.json", INDEX_NAME]
    assert Plan([frozen], seed=0, global_batch=8).step(5).rows.shape == (8,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grouping": "size"}, "unknown grouping 'size'.*none, modality, task"),
        ({"global_batch": 0}, "global batch"),
        ({"window": 0}, "window"),
        ({"weights": {"DTE": "1"}}, "weights given for DTE.*DET"),
        ({"weights": {"DET": "0"}}, "DET.*above 0.*'0'"),
        ({"weights": {"DET": "-1"}}, "DET.*above 0.*'-1'"),
        ({"weights": {"DET": "1/0"}}, "DET.*above 0.*'1/0'"),
        ({"weights": {"DET": "often"}}, "DET.*above 0.*'often'"),
    ],
)
def test_what_is_wrong_with_the_settings_is_reported(
    frozen: FrozenSet, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Plan([frozen], **{"seed": 0, "global_batch": 8, **settings})  # type: ignore[arg-type]


def test_the_same_set_twice_and_no_set_are_refused(frozen: FrozenSet) -> None:
    with pytest.raises(SettingsError, match=r"twice.*weights"):
        Plan([frozen, FrozenSet(frozen.root)], seed=0, global_batch=8)
    with pytest.raises(SettingsError, match="needs at least one set"):
        Plan([], seed=0, global_batch=8)
    with pytest.raises(ValueError, match="-1"):
        Plan([frozen], seed=0, global_batch=8).step(-1)


@pytest.mark.parametrize("rows_at_once", [1, 64, 10_000])
def test_the_order_is_the_same_however_many_windows_are_looked_up_together(
    frozen: FrozenSet, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps() -> list[object]:
        plan = Plan([frozen], seed=1, global_batch=4, grouping="task", window=4)
        return [shown(plan.step(number)) for number in range(plan.first_step(3))]

    expected = steps()
    monkeypatch.setattr("griffon_train.data.plan._ROWS_AT_ONCE", rows_at_once)
    assert steps() == expected
