"""VG: where is the expression?"""

import pytest

from griffon_prep.records import Rejected
from griffon_shards.grammar import parse_answer

from ..rendering import BARE, filling, record_of, rendered, texts

LEFT, RIGHT = (100.0, 50.0, 200.0, 250.0), (700.0, 50.0, 800.0, 250.0)
OUTSIDE = (2000.0, 0.0, 3000.0, 10.0)
CUPS = record_of(("the two cups, left & right", RIGHT), ("the two cups, left & right", LEFT), record_no=11)

GOLDEN = {
    "text": [
        (
            "<image>\nIf the two cups, left & right can be seen here, say where.",
            "the two cups, left & right-[0.100,0.100,0.200,0.500]&the two cups, left & right-[0.700,0.100,0.800,0.500]",
        ),
        (
            "<image>\nZero in on the two cups, left & right and state the coordinates.",
            "the two cups, left & right-[0.100,0.100,0.200,0.500]&the two cups, left & right-[0.700,0.100,0.800,0.500]",
        ),
        (
            "<image>\nTell me the position of the two cups, left & right.",
            "the two cups, left & right-[0.100,0.100,0.200,0.500]&the two cups, left & right-[0.700,0.100,0.800,0.500]",
        ),
    ],
    "bin": [
        (
            "<image>\nIf the two cups, left & right can be seen here, say where.",
            "the two cups, left & right-<bin_100><bin_100><bin_200><bin_500>&the two cups, left & "
            "right-<bin_700><bin_100><bin_800><bin_500>",
        ),
        (
            "<image>\nZero in on the two cups, left & right and state the coordinates.",
            "the two cups, left & right-<bin_100><bin_100><bin_200><bin_500>&the two cups, left & "
            "right-<bin_700><bin_100><bin_800><bin_500>",
        ),
        (
            "<image>\nTell me the position of the two cups, left & right.",
            "the two cups, left & right-<bin_100><bin_100><bin_200><bin_500>&the two cups, left & "
            "right-<bin_700><bin_100><bin_800><bin_500>",
        ),
    ],
}


@pytest.mark.parametrize("style", ["text", "bin"])
def test_golden(style: str) -> None:
    renderings = rendered("VG", CUPS, style=style, seed=5, variants=3)
    assert [texts(rendering) for rendering in renderings] == GOLDEN[style]
    assert [rendering.region_xyxy_px for rendering in renderings] == [None] * 3


@pytest.mark.parametrize("style", ["text", "bin"])
def test_an_absent_expression_is_none(style: str) -> None:
    (rendering,) = rendered("VG", record_of(absent=["a zebra"]), style=style, templates=BARE)
    assert filling(rendering) == "a zebra"
    assert texts(rendering)[1] == "None"


def test_lost_boxes_are_omitted_from_the_answer() -> None:
    (rendering,) = rendered("VG", record_of(("cups", OUTSIDE), ("cups", LEFT)))
    assert texts(rendering)[1] == "cups-[0.100,0.100,0.200,0.500]"


def test_none_is_never_the_answer_for_lost_boxes() -> None:
    with pytest.raises(Rejected) as caught:
        rendered("VG", record_of(("cups", OUTSIDE), ("cups", (5.0, 5.0, 1.0, 9.0))))
    assert (caught.value.reason, caught.value.detail[:22]) == ("all_boxes_dropped", "1 inverted, 1 outside;")


def test_an_expression_is_filled_in_as_it_is() -> None:
    text = "a <expr>, \\1 {0} %s 猫 <region>"
    (rendering,) = rendered("VG", record_of((text, LEFT)), templates=BARE)
    assert filling(rendering) == text


@pytest.mark.parametrize("style", ["text", "bin"])
@pytest.mark.parametrize("text", ["two lines\nof text", "a\r\n\tb", "left & right-[0.1,0.2]", "None"])
def test_a_label_is_written_as_it_is_and_read_back(text: str, style: str) -> None:
    (rendering,) = rendered("VG", record_of((text, LEFT)), style=style)
    question, answer = texts(rendering)
    assert text in question
    assert parse_answer(answer, "VG", style) == [(text, (0.1, 0.1, 0.2, 0.5))]


@pytest.mark.parametrize("boxes", [[LEFT], []])
def test_an_expression_must_not_bring_a_second_image(boxes: list[tuple[float, float, float, float]]) -> None:
    record = record_of(*(("an <image> of it", box) for box in boxes), absent=[] if boxes else ["an <image> of it"])
    with pytest.raises(Rejected) as caught:
        rendered("VG", record)
    assert (caught.value.reason, caught.value.detail) == ("image_token_in_text", "'an <image> of it'")
