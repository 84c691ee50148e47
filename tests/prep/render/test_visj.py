"""VISJ: a crop of one box, and all boxes of its category."""

import pytest

from griffon_prep.records import Record, Rejected
from griffon_shards.types import BOX_STYLES, Rendering

from ..rendering import BARE, filling, record_of, rendered, texts

CAT, DOG, OTHER_CAT = ((x, 50.0, x + 100.0, 250.0) for x in (500.0, 100.0, 300.0))
POINT = (700.0, 100.0, 700.0, 200.0)
OUTSIDE = (2000.0, 0.0, 3000.0, 10.0)
ZOO = record_of(("cat", CAT), ("dog", DOG), ("cat", OTHER_CAT), absent=["zebra"], record_no=7)
CATS = "[0.300,0.100,0.400,0.500]&[0.500,0.100,0.600,0.500]"
DOGS = "[0.100,0.100,0.200,0.500]"


def many(record: Record) -> list[Rendering]:
    return [rendered("VISJ", record, seed=seed, templates=BARE)[0] for seed in range(100)]


GOLDEN = {
    "text": [
        (
            "<image>\nDecide what <region> is, then locate all objects of that sort.\nWrite every box as "
            "[x1,y1,x2,y2] and put & between boxes.",
            "[0.100,0.100,0.200,0.500]",
            (100.0, 50.0, 200.0, 250.0),
        ),
        (
            "<image>\nCould you mark every object that is the same sort of thing as <region>?\nWrite every box "
            "as [x1,y1,x2,y2] and put & between boxes.",
            "[0.300,0.100,0.400,0.500]&[0.500,0.100,0.600,0.500]",
            (300.0, 50.0, 400.0, 250.0),
        ),
        (
            "<image>\nMatch <region> against the whole picture and box every hit.\nWrite every box as "
            "[x1,y1,x2,y2] and put & between boxes.",
            "[0.300,0.100,0.400,0.500]&[0.500,0.100,0.600,0.500]",
            (500.0, 50.0, 600.0, 250.0),
        ),
    ],
    "bin": [
        (
            "<image>\nDecide what <region> is, then locate all objects of that sort.\nWrite every box as "
            "<bin_x1><bin_y1><bin_x2><bin_y2> and put & between boxes.",
            "<bin_100><bin_100><bin_200><bin_500>",
            (100.0, 50.0, 200.0, 250.0),
        ),
        (
            "<image>\nCould you mark every object that is the same sort of thing as <region>?\nWrite every box "
            "as <bin_x1><bin_y1><bin_x2><bin_y2> and put & between boxes.",
            "<bin_300><bin_100><bin_400><bin_500>&<bin_500><bin_100><bin_600><bin_500>",
            (300.0, 50.0, 400.0, 250.0),
        ),
        (
            "<image>\nMatch <region> against the whole picture and box every hit.\nWrite every box as "
            "<bin_x1><bin_y1><bin_x2><bin_y2> and put & between boxes.",
            "<bin_300><bin_100><bin_400><bin_500>&<bin_500><bin_100><bin_600><bin_500>",
            (500.0, 50.0, 600.0, 250.0),
        ),
    ],
}


@pytest.mark.parametrize("style", ["text", "bin"])
def test_golden(style: str) -> None:
    renderings = rendered("VISJ", ZOO, style=style, seed=5, variants=3)
    assert [(*texts(rendering), rendering.region_xyxy_px) for rendering in renderings] == GOLDEN[style]


def test_the_region_is_a_box_of_the_answers_category() -> None:
    seen = {(rendering.region_xyxy_px, texts(rendering)[1]) for rendering in many(ZOO)}
    assert seen == {(CAT, CATS), (OTHER_CAT, CATS), (DOG, DOGS)}
    assert {filling(rendering) for rendering in many(ZOO)} == {"<region>"}


def test_categories_are_drawn_evenly_whatever_the_number_of_their_boxes() -> None:
    record = record_of(*(("cat", (x, 1.0, x + 10.0, 200.0)) for x in range(0, 500, 10)), ("dog", DOG))
    dogs = sum(texts(rendering)[1] == DOGS for rendering in many(record))
    assert 30 < dogs < 70


def test_the_region_is_clamped_to_the_image_in_pixels() -> None:
    (rendering,) = rendered("VISJ", record_of(("cat", (-20.5, 10.123456, 30.25, 900.0))))
    assert rendering.region_xyxy_px == (0.0, 10.123456, 30.25, 500.0)
    (rendering,) = rendered("VISJ", record_of(("cat", (-0.0, -0.0, 2000.0, 9.0))))
    assert str(rendering.region_xyxy_px) == "(0.0, 0.0, 1000.0, 9.0)"


def test_a_box_without_area_is_an_answer_and_never_the_region() -> None:
    record = record_of(("cat", POINT), ("cat", CAT), ("gnu", POINT))
    assert {(rendering.region_xyxy_px, texts(rendering)[1]) for rendering in many(record)} == {
        (CAT, "[0.500,0.100,0.600,0.500]&[0.700,0.200,0.700,0.400]")
    }


def test_categories_with_lost_boxes_are_neither_asked_for_nor_absent() -> None:
    record = record_of(("cat", CAT), ("cat", OUTSIDE), ("gnu", OUTSIDE))
    assert {(rendering.region_xyxy_px, texts(rendering)[1]) for rendering in many(record)} == {
        (CAT, "[0.500,0.100,0.600,0.500]")
    }


def test_every_category_has_its_own_answer_in_both_styles() -> None:
    for style in BOX_STYLES:
        answers = {texts(rendered("VISJ", ZOO, style=style, seed=seed)[0])[1] for seed in range(50)}
        assert len(answers) == 2


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (record_of(), "no_objects", "no boxes"),
        (record_of(absent=["zebra"]), "no_objects", "no boxes"),
        (record_of(("cat", OUTSIDE), absent=["zebra"]), "all_boxes_dropped", "1 outside"),
        (record_of(("cat", POINT)), "all_boxes_dropped", "no box has an area to crop"),
    ],
)
def test_what_cannot_be_asked(record: Record, reason: str, detail: str) -> None:
    with pytest.raises(Rejected) as caught:
        rendered("VISJ", record)
    assert (caught.value.reason, caught.value.detail.partition(";")[0]) == (reason, detail)
