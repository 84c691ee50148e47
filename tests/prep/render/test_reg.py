"""REG: what is in this box?"""

import pytest

from griffon_prep.records import Rejected
from griffon_shards.types import BoxXYXY

from ..rendering import BARE, filling, record_of, rendered, texts

BOX = (100.4, 50.0, 200.6, 250.0)
MAN = record_of(("the man & his dog - left", BOX), record_no=3)

GOLDEN = {
    "text": [
        (
            "<image>\nSomeone else must click on the object in [0.100,0.100,0.201,0.500]. What do you tell them?",
            "the man & his dog - left",
        ),
        (
            "<image>\nDescribe only what is inside [0.100,0.100,0.201,0.500], and make the description unmistakable.",
            "the man & his dog - left",
        ),
        (
            "<image>\nHow would you refer to what lies in [0.100,0.100,0.201,0.500]?",
            "the man & his dog - left",
        ),
    ],
    "bin": [
        (
            "<image>\nSomeone else must click on the object in <bin_100><bin_100><bin_201><bin_500>. What do "
            "you tell them?",
            "the man & his dog - left",
        ),
        (
            "<image>\nDescribe only what is inside <bin_100><bin_100><bin_201><bin_500>, and make the "
            "description unmistakable.",
            "the man & his dog - left",
        ),
        (
            "<image>\nHow would you refer to what lies in <bin_100><bin_100><bin_201><bin_500>?",
            "the man & his dog - left",
        ),
    ],
}


@pytest.mark.parametrize("style", ["text", "bin"])
def test_golden(style: str) -> None:
    renderings = rendered("REG", MAN, style=style, seed=5, variants=3)
    assert [texts(rendering) for rendering in renderings] == GOLDEN[style]
    assert [rendering.region_xyxy_px for rendering in renderings] == [None] * 3


@pytest.mark.parametrize(
    ("box", "text", "bins"),
    [
        ((0.0, 0.0, 1000.0, 500.0), "[0.000,0.000,1.000,1.000]", "<bin_0><bin_0><bin_1000><bin_1000>"),
        ((-9.0, 3.0, 2e9, 501.0), "[0.000,0.006,1.000,1.000]", "<bin_0><bin_6><bin_1000><bin_1000>"),
        ((500.0, 250.0, 500.0, 250.0), "[0.500,0.500,0.500,0.500]", "<bin_500><bin_500><bin_500><bin_500>"),
        ((-0.0, -0.0, 7.0, 1.0), "[0.000,0.000,0.007,0.002]", "<bin_0><bin_0><bin_7><bin_2>"),
    ],
)
def test_the_box_is_the_question(box: BoxXYXY, text: str, bins: str) -> None:
    for style, expected in (("text", text), ("bin", bins)):
        (rendering,) = rendered("REG", record_of(("it", box)), style=style, templates=BARE)
        assert filling(rendering) == expected
        assert texts(rendering)[1] == "it"


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((2000.0, 0.0, 3000.0, 10.0), "1 outside"),
        ((5.0, 5.0, 1.0, 9.0), "1 inverted"),
        ((0.0, float("inf"), 1.0, 9.0), "1 not_finite"),
    ],
)
def test_a_record_without_boxes_asks_nothing(box: BoxXYXY, message: str) -> None:
    with pytest.raises(Rejected) as caught:
        rendered("REG", record_of(("it", box)))
    assert (caught.value.reason, caught.value.detail.partition(";")[0]) == ("all_boxes_dropped", message)


def test_the_token_in_an_expression_is_text() -> None:
    (rendering,) = rendered("REG", record_of(("the word <image> on a sign", BOX)))
    question, answer = texts(rendering)
    assert question.count("<image>") == 1
    assert answer == "the word <image> on a sign"
