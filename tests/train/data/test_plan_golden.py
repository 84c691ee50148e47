"""The order is pinned: a run gone on with a year later gets the samples that would have come then.

If one of these values changes, raise `PLAN_VERSION`, and say so to everybody who has a run going.
"""

import pytest

from griffon_shards.frozen_set import FrozenSet
from griffon_train.data.plan import PLAN_VERSION, Plan

from ..streams import keys_of
from ..synthetic import Source, write_synthetic

SET_DIGESTS = [
    "b46513634036c8a6cb995bea6975e148d7724884362ca33bd37f073302e65c95",
    "34300ad4bb0373c84670ea63163a5440e77e36b9a139633b6a9c44e5c3122dd2",
]
# By grouping: the plan's digest, and by step its epoch, group, and `tag-record.variant` of every slot.
Golden = dict[int, tuple[int, str, str]]
GOLDEN: dict[str, tuple[str, Golden]] = {
    "none": (
        "b0518a446dadd0ee2d40256425f5f3886c5371f4ab3b889d005cdba7abf72335",
        {
            0: (0, "all", "DET-27.0 REG-61.0 VISJ-8.1 LAZY_mixed-25.0"),
            1: (0, "all", "LAZY_mixed-8.0 VISJ-17.1 DET-51.0 REG-51.0"),
            2: (0, "all", "VISJ-16.1 VISJ-16.0 VISJ-15.1 REG-30.0"),
            42: (0, "all", "DET-7.0 DET-41.0 LAZY_mixed-5.0 REG-4.0"),
            43: (1, "all", "REG-22.0 DET-57.0 REG-57.0 VISJ-4.2"),
            1000: (23, "all", "REG-64.0 REG-11.0 DET-63.2 DET-45.2"),
            1000000: (23188, "all", "REG-29.0 LAZY_mixed-29.1 DET-29.2 LAZY_mixed-10.1"),
        },
    ),
    "modality": (
        "0a5342a7a98a6ff4fc8cdff1b98cc90f5fcd6d35cea132e55c6a8bd9b28c4a1f",
        {
            0: (0, "image", "DET-89.0 VISJ-19.1 VISJ-1.0 VISJ-18.0"),
            1: (0, "image", "DET-60.0 DET-25.0 REG-39.0 DET-3.0"),
            2: (0, "image", "DET-46.0 DET-63.0 DET-62.0 DET-43.0"),
            43: (0, "image", "LAZY_mixed-1.0 DET-27.0 REG-0.0 VISJ-20.0"),
            44: (1, "image", "DET-29.0 REG-63.0 VISJ-10.0 VISJ-5.2"),
            1000: (23, "image", "REG-49.0 REG-48.0 LAZY_mixed-13.2 DET-83.2"),
            1000000: (23188, "image", "REG-37.0 VISJ-19.0 DET-89.2 DET-70.2"),
        },
    ),
    "task": (
        "733cdeec47634ef0f877f4e64d6bbf8034e6199b446db50ae6af770150de6474",
        {
            0: (0, "localization", "REG-59.0 DET-72.0 DET-36.0 DET-53.0"),
            1: (0, "localization", "DET-14.0 REG-26.0 REG-60.0 DET-7.0"),
            2: (0, "localization", "REG-51.0 REG-31.0 REG-28.0 REG-10.0"),
            44: (0, "localization", "REG-3.0 REG-64.0 DET-2.0 REG-6.0"),
            45: (1, "localization", "DET-22.0 DET-1.0 DET-71.0 REG-36.0"),
            1000: (23, "referring", "VISJ-17.1 VISJ-13.2 VISJ-12.2 VISJ-5.2"),
            1000000: (23188, "general", "LAZY_mixed-15.1 LAZY_mixed-11.1 LAZY_mixed-38.1 LAZY_mixed-3.1"),
        },
    ),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[FrozenSet]:
    folder = tmp_path_factory.mktemp("golden")
    first = [
        Source(tag="LAZY_mixed", rows=40, pictured=lambda row: row % 4 > 0),
        Source(tag="DET", rows=90, weight="1/2"),
        Source(tag="VISJ", rows=21, weight="2"),
    ]
    second = [Source(tag="REG", rows=65, weight="0.7")]
    return [write_synthetic(folder / "a", first, variants=3), write_synthetic(folder / "b", second, content="1")]


def short(key: str) -> str:
    tag, _, record = key.rpartition("-")
    return f"{tag}-{int(record)}"


def test_the_sets_are_pinned(sets: list[FrozenSet]) -> None:
    assert [frozen.lock.digest for frozen in sets] == SET_DIGESTS


@pytest.mark.parametrize("grouping", GOLDEN)
def test_the_order_is_pinned(sets: list[FrozenSet], grouping: str) -> None:
    digest, steps = GOLDEN[grouping]
    plan = Plan(sets, seed=7, global_batch=4, grouping=grouping, window=4)
    result: Golden = {}
    for number in steps:
        step = plan.step(number)
        pairs = zip(map(short, keys_of(plan, step)), step.variants.tolist(), strict=True)
        result[number] = step.epoch, step.group, " ".join(f"{key}.{variant}" for key, variant in pairs)
    assert result == steps
    assert (plan.digest, PLAN_VERSION) == (digest, 1)
