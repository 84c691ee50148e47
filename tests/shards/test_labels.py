"""Labels of drawn boxes: short, clear of each other, beside their boxes, and never a reason to fail."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from griffon_shards import label_text
from griffon_shards.draw import draw_boxes
from griffon_shards.label_placement import place_labels
from griffon_shards.label_text import fit_label
from griffon_shards.types import BoxXYXY

SIZE_PX = (640, 480)
Rectangle = tuple[int, int, int, int]


def placed(boxes: Sequence[BoxXYXY], label_px: tuple[int, int] = (80, 14)) -> list[Rectangle]:
    corners = place_labels([label_px] * len(boxes), boxes, SIZE_PX)
    return [(x, y, x + label_px[0], y + label_px[1]) for x, y in corners]


def common_px2(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


@pytest.mark.parametrize("shift_px", [0, 2])
@pytest.mark.parametrize("corner", [(0, 0), (560, 0), (0, 430), (560, 430), (300, 200)])
def test_labels_of_nine_boxes_in_one_place_do_not_cover_each_other(corner: tuple[int, int], shift_px: int) -> None:
    x, y = corner
    boxes = [
        (float(x + i * shift_px), float(y + i * shift_px), float(x + 50 + i * shift_px), float(y + 30 + i * shift_px))
        for i in range(9)
    ]
    labels = placed(boxes)
    assert all(common_px2(one, other) == 0 for one, other in combinations(labels, 2))
    assert all(x1 >= 0 and y1 >= 0 and x2 <= SIZE_PX[0] and y2 <= SIZE_PX[1] for x1, y1, x2, y2 in labels)
    for label, box in zip(labels, boxes, strict=True):
        assert max(box[0] - label[2], label[0] - box[2], box[1] - label[3], label[1] - box[3]) <= 10 * 14, "close by"


def test_a_label_stays_clear_of_other_boxes() -> None:
    """The second box lies where the label of the first would go."""
    first, second = (200.0, 200.0, 300.0, 300.0), (200.0, 150.0, 300.0, 198.0)
    label, _ = placed([first, second])
    assert common_px2(label, second) == 0
    assert (label[0], label[1]) == (200, 301), "below its box"


def test_a_small_box_is_not_hidden_by_its_own_label() -> None:
    box = (100.0, 100.0, 106.0, 106.0)
    (label,) = placed([box])
    assert common_px2(label, box) == 0


positions_px = st.floats(-10, 700)


@given(boxes=st.lists(st.tuples(positions_px, positions_px, positions_px, positions_px), max_size=20))
def test_labels_lie_inside_the_image_and_in_the_same_places_every_time(boxes: list[BoxXYXY]) -> None:
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
    labels = placed(ordered)
    assert all(x1 >= 0 and y1 >= 0 and x2 <= SIZE_PX[0] and y2 <= SIZE_PX[1] for x1, y1, x2, y2 in labels)
    assert labels == placed(ordered)


def test_a_label_of_a_thousand_characters_is_shortened() -> None:
    text, font = fit_label("wheel " * 200, 12, 120)
    assert text.startswith("wheel wheel") and text.endswith("…")
    assert 90 < font.getlength(text) <= 120
    assert fit_label("wheel", 12, 120)[0] == "wheel"


def test_characters_that_no_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_text, "_SYSTEM_FONTS", ())
    label_text._system_fonts.cache_clear()
    assert fit_label("café 猫 cat", 12, 500)[0] == "cafe ? cat"
    label_text._system_fonts.cache_clear()


def test_a_font_of_the_system_is_taken_where_it_has_more() -> None:
    try:
        ImageFont.truetype("DejaVuSans.ttf", 12)
    except OSError:
        pytest.skip("needs the fonts DejaVu")
    text, font = fit_label("кошка", 12, 500)
    assert text == "кошка"
    assert isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] != "Aileron"


@pytest.mark.parametrize(
    "label", ["", " ", "\0", "\ud800", "a\nb\tc", "猫" * 1000, "\u202eكلب", "👩‍👩‍👧", "-&-", "x" * 100_000]
)
@pytest.mark.parametrize("size_px", [(1, 1), (12, 9), (300, 200)])
def test_any_label_can_be_drawn(label: str, size_px: tuple[int, int]) -> None:
    image = Image.new("RGB", size_px, "#808080")
    draw_boxes(image, [(label, (0.0, 0.0, size_px[0] / 2, size_px[1] / 2))] * 3)
    assert (np.asarray(image) != 0x80).any()
