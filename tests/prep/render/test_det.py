"""DET: the category set and what may be in it, and all boxes of the image in order."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffon_prep.records import Record, Rejected
from griffon_shards.types import BoxXYXY

from ..rendering import BARE, filling, record_of, rendered, texts

NAMES = tuple(f"thing {i}" for i in range(200))
CAT, DOG, BIRD = ((x, 50.0, x + 100.0, 250.0) for x in (500.0, 100.0, 300.0))
OUTSIDE: BoxXYXY = (2000.0, 0.0, 3000.0, 10.0)
ZOO = record_of(("cat", CAT), ("dog", DOG), ("cat", BIRD), absent=["zebra"], record_no=7)


def category_set(
    record: Record, vocabulary: tuple[str, ...] = NAMES, det_categories: int = 80, seed: int = 0
) -> list[str]:
    (rendering,) = rendered(
        "DET", record, vocabulary=vocabulary, det_categories=det_categories, seed=seed, templates=BARE
    )
    return filling(rendering).split(", ")


GOLDEN = {
    "text": [
        (
            "<image>\nIgnore everything except the following object types, and box each one you see: zebra, "
            "thing 5, thing 3, cat, dog, thing 18.\nWrite every object as its category name, a hyphen, and "
            "its box [x1,y1,x2,y2]; put & between objects, and write None if there is none.",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
        (
            "<image>\nRun object detection with this label list: zebra, thing 6, thing 16, thing 0, cat, "
            "dog.\nWrite every object as its category name, a hyphen, and its box [x1,y1,x2,y2]; put & "
            "between objects, and write None if there is none.",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
        (
            "<image>\nRun object detection with this label list: thing 15, thing 0, cat, dog, thing 5, "
            "zebra.\nWrite every object as its category name, a hyphen, and its box [x1,y1,x2,y2]; put & "
            "between objects, and write None if there is none.",
            "dog-[0.100,0.100,0.200,0.500]&cat-[0.300,0.100,0.400,0.500]&cat-[0.500,0.100,0.600,0.500]",
        ),
    ],
    "bin": [
        (
            "<image>\nIgnore everything except the following object types, and box each one you see: zebra, "
            "thing 5, thing 3, cat, dog, thing 18.\nWrite every object as its category name, a hyphen, and "
            "its box <bin_x1><bin_y1><bin_x2><bin_y2>; put & between objects, and write None if there is none.",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
        (
            "<image>\nRun object detection with this label list: zebra, thing 6, thing 16, thing 0, cat, "
            "dog.\nWrite every object as its category name, a hyphen, and its box "
            "<bin_x1><bin_y1><bin_x2><bin_y2>; put & between objects, and write None if there is none.",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
        (
            "<image>\nRun object detection with this label list: thing 15, thing 0, cat, dog, thing 5, "
            "zebra.\nWrite every object as its category name, a hyphen, and its box "
            "<bin_x1><bin_y1><bin_x2><bin_y2>; put & between objects, and write None if there is none.",
            "dog-<bin_100><bin_100><bin_200><bin_500>&cat-<bin_300><bin_100><bin_400><bin_500>&"
            "cat-<bin_500><bin_100><bin_600><bin_500>",
        ),
    ],
}


@pytest.mark.parametrize("style", ["text", "bin"])
def test_golden(style: str) -> None:
    renderings = rendered("DET", ZOO, style=style, seed=5, vocabulary=NAMES[:20], det_categories=6, variants=3)
    assert [texts(rendering) for rendering in renderings] == GOLDEN[style]
    assert [rendering.region_xyxy_px for rendering in renderings] == [None] * 3


def test_the_set_is_filled_with_negatives_up_to_its_size() -> None:
    for size, expected in ((80, 80), (10, 10), (3, 3), (2, 2), (1, 2), (0, 2)):  # cat and dog are there
        names = category_set(ZOO, det_categories=size)
        assert len(names) == len(set(names)) == expected
        assert {"cat", "dog"} <= set(names) <= {"cat", "dog", "zebra", *NAMES}


def test_the_set_is_all_there_is_where_the_vocabulary_is_small() -> None:
    assert sorted(category_set(ZOO, ("bird", "cat", "dog", "zebra"))) == ["bird", "cat", "dog", "zebra"]
    assert sorted(category_set(ZOO, ())) == ["cat", "dog", "zebra"]


def test_more_present_than_the_set_holds_are_all_asked_for() -> None:
    record = record_of(*((name, CAT) for name in NAMES[:90]))
    assert sorted(category_set(record)) == sorted(NAMES[:90])


def test_what_the_record_calls_absent_comes_before_the_vocabulary() -> None:
    record = record_of(("cat", CAT), absent=["zebra", "gnu", "cat"])
    assert set(category_set(record, det_categories=3)) == {"cat", "zebra", "gnu"}


def test_a_category_that_lost_its_boxes_is_not_asked_for() -> None:
    record = record_of(("cat", CAT), ("dog", OUTSIDE), ("gnu", (float("nan"), 0.0, 1.0, 1.0)), ("cat", OUTSIDE))
    names = category_set(record, ("ant", "cat", "dog", "gnu"), 4)
    assert sorted(names) == ["ant", "cat"]


@settings(deadline=None, max_examples=300)
@given(
    present=st.lists(st.sampled_from(NAMES[:30]), min_size=1, max_size=12),
    dropped=st.lists(st.sampled_from(NAMES[:30]), max_size=12),
    absent=st.lists(st.sampled_from(NAMES[:40]), max_size=6),
    vocabulary=st.sets(st.sampled_from(NAMES[:40])),
    size=st.integers(0, 45),
    seed=st.integers(0, 99),
)
def test_nothing_but_absent_categories_is_negative(
    present: list[str], dropped: list[str], absent: list[str], vocabulary: set[str], size: int, seed: int
) -> None:
    regions = [*((name, CAT) for name in present), *((name, OUTSIDE) for name in dropped)]
    absent = [name for name in dict.fromkeys(absent) if name not in {*present, *dropped}]
    names = category_set(record_of(*regions, absent=absent), tuple(sorted(vocabulary)), size, seed)
    assert len(names) == len(set(names))
    negatives = set(names) - set(present)
    possible = ({*absent} | vocabulary) - {*present, *dropped}
    assert set(present) <= set(names)
    assert negatives <= possible
    assert len(negatives) == min(len(possible), max(0, size - len(set(present))))


def test_present_categories_stand_anywhere_in_the_set() -> None:
    places = {category_set(ZOO, det_categories=5, seed=seed).index("cat") for seed in range(60)}
    assert places == {0, 1, 2, 3, 4}


def test_every_negative_is_drawn() -> None:
    drawn = {name for seed in range(100) for name in category_set(record_of(("cat", CAT)), NAMES[:40], 5, seed)}
    assert drawn == {"cat", *NAMES[:40]}


def test_records_and_variants_ask_differently() -> None:
    sets = [category_set(record_of(("cat", CAT), record_no=i)) for i in range(5)]
    sets += [filling(item).split(", ") for item in rendered("DET", ZOO, vocabulary=NAMES, variants=3, templates=BARE)]
    assert all(one != other for one, other in pairwise(sets))


@pytest.mark.parametrize("absent", [[], ["zebra"]])
def test_an_image_without_objects_is_skipped(absent: list[str]) -> None:
    with pytest.raises(Rejected) as caught:
        rendered("DET", record_of(absent=absent), vocabulary=NAMES)
    assert caught.value.reason == "no_objects"


def test_an_image_that_lost_all_boxes_is_skipped() -> None:
    with pytest.raises(Rejected) as caught:
        rendered("DET", record_of(("cat", OUTSIDE), absent=["zebra"]), vocabulary=NAMES)
    assert caught.value.reason == "all_boxes_dropped"


def test_a_category_must_not_bring_a_second_image() -> None:
    with pytest.raises(Rejected) as caught:
        rendered("DET", record_of(("an <image>", CAT)), vocabulary=NAMES)
    assert (caught.value.reason, caught.value.detail) == ("image_token_in_text", "'an <image>'")
