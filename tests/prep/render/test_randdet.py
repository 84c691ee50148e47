"""RANDDET: a handful of categories, present and absent, in one phrase."""

import re

import pytest

from griffon_prep.records import Record, Rejected
from griffon_prep.render.detection import enumeration
from griffon_shards.types import BoxXYXY

from ..rendering import BARE, filling, record_of, rendered, texts

CAT, DOG, BIRD = ((x, 50.0, x + 100.0, 250.0) for x in (500.0, 100.0, 300.0))
OUTSIDE: BoxXYXY = (2000.0, 0.0, 3000.0, 10.0)
ZOO = record_of(("cat", CAT), ("dog", DOG), ("cat", BIRD), absent=["zebra", "gnu"], record_no=7)


def phrase(record: Record, seed: int = 0) -> str:
    return filling(rendered("RANDDET", record, seed=seed, templates=BARE)[0])


def answer(record: Record) -> str:
    return texts(rendered("RANDDET", record)[0])[1]


GOLDEN = {
    "text": [
        (
            "<image>\nShow where cat, gnu, zebra, and dog can be found.",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
        (
            "<image>\nKindly supply the box coordinates that enclose cat, gnu, zebra, and dog.",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
        (
            "<image>\nSomeone asked me about dog, cat, gnu, and zebra. Which area of the picture should I show them?",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
    ],
    "bin": [
        (
            "<image>\nShow where cat, gnu, zebra, and dog can be found.",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
        (
            "<image>\nKindly supply the box coordinates that enclose cat, gnu, zebra, and dog.",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
        (
            "<image>\nSomeone asked me about dog, cat, gnu, and zebra. Which area of the picture should I show them?",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
    ],
}


@pytest.mark.parametrize("style", ["text", "bin"])
def test_golden(style: str) -> None:
    renderings = rendered("RANDDET", ZOO, style=style, seed=5, variants=3)
    assert [texts(rendering) for rendering in renderings] == GOLDEN[style]
    assert [rendering.region_xyxy_px for rendering in renderings] == [None] * 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b, and c"),
        (["a", "b c", "d", "e"], "a, b c, d, and e"),
    ],
)
def test_enumeration(names: list[str], expected: str) -> None:
    assert enumeration(names) == expected
    actual = phrase(record_of(*((name, CAT) for name in names)))
    assert sorted(re.split(", and | and |, ", actual)) == names
    assert re.sub("b c|[a-e]", "x", actual) == re.sub("b c|[a-e]", "x", expected)


def test_present_and_absent_are_mixed() -> None:
    orders = [re.split(", and |, ", phrase(ZOO, seed)) for seed in range(200)]
    assert all(sorted(order) == ["cat", "dog", "gnu", "zebra"] for order in orders)
    assert len({tuple(order) for order in orders}) == 24


def test_all_absent_is_none() -> None:
    record = record_of(absent=["zebra", "gnu"])
    assert phrase(record) in ("zebra and gnu", "gnu and zebra")
    assert answer(record) == "None"


def test_a_category_that_lost_its_boxes_is_not_asked_for() -> None:
    record = record_of(("cat", CAT), ("dog", OUTSIDE), absent=["zebra", "dog"])
    assert phrase(record) in ("cat and zebra", "zebra and cat")
    assert answer(record) == "cat-[0.500,0.100,0.600,0.500]"


def test_none_is_never_the_answer_for_lost_boxes() -> None:
    with pytest.raises(Rejected) as caught:
        rendered("RANDDET", record_of(("dog", OUTSIDE), absent=["zebra"]))
    assert (caught.value.reason, caught.value.detail[:10]) == ("all_boxes_dropped", "1 outside;")


def test_no_category_at_all_is_left_out() -> None:
    with pytest.raises(Rejected) as caught:
        rendered("RANDDET", record_of())
    assert caught.value.reason == "no_objects"


@pytest.mark.parametrize("record", [record_of(("<image>", CAT)), record_of(("cat", CAT), absent=["a <image>"])])
def test_a_category_must_not_bring_a_second_image(record: Record) -> None:
    with pytest.raises(Rejected) as caught:
        rendered("RANDDET", record)
    assert caught.value.reason == "image_token_in_text"
