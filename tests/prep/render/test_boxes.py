"""Which boxes are written, in which order, and that every answer gives the source's boxes back."""

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from griffon_prep.images import shrunk_size
from griffon_prep.records import Record, Rejected
from griffon_prep.render.boxes import clean_boxes
from griffon_shards.grammar import clamp_box, round_box
from griffon_shards.types import BOX_STYLES, BoxXYXY

from ..rendering import BARE, filling, record_of, rendered, texts

INFINITE = math.inf
RECORDS = 10_000
FRACTION = {"text": r"(-?\d+\.\d{3})", "bin": r"(\d+)"}
BOX = {
    "text": r"\[{0},{0},{0},{0}\]".format(FRACTION["text"]),
    "bin": "<bin_{0}><bin_{0}><bin_{0}><bin_{0}>".format(FRACTION["bin"]),
}
NAMES = ("cat", "Dog", "traffic light", "T-shirt & tie", "猫", "a")
Labelled = list[tuple[str, BoxXYXY]]


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((math.nan, 1.0, 2.0, 3.0), "not_finite"),
        ((1.0, 1.0, INFINITE, 3.0), "not_finite"),
        ((-INFINITE, 1.0, 2.0, 3.0), "not_finite"),
        ((30.0, 10.0, 20.0, 20.0), "inverted"),
        ((10.0, 30.0, 20.0, 20.0), "inverted"),
        ((2000.0, 30.0, 1500.0, 40.0), "inverted"),
        ((-20.0, 10.0, -10.0, 20.0), "outside"),
        ((1000.0, 10.0, 1200.0, 20.0), "outside"),
        ((10.0, -20.0, 20.0, 0.0), "outside"),
        ((10.0, 500.0, 20.0, 501.0), "outside"),
        ((0.0, 10.0, 0.4, 20.0), "outside"),  # on the left edge after rounding
        ((999.6, 10.0, 1000.0, 20.0), "outside"),
        ((10.0, 0.0, 20.0, 0.2), "outside"),
        ((10.0, 499.9, 20.0, 500.0), "outside"),
        ((0.0, 0.0, 0.0, 500.0), "outside"),
    ],
)
def test_a_box_that_is_not_written(box: BoxXYXY, fault: str) -> None:
    with pytest.raises(Rejected) as caught:
        clean_boxes(record_of(("cat", box), ("cat", box)))
    assert (caught.value.reason, caught.value.detail.partition(";")[0]) == ("all_boxes_dropped", f"2 {fault}")
    boxes, dropped = clean_boxes(record_of(("cat", box), ("cat", (10.0, 10.0, 20.0, 20.0))))
    assert len(boxes) == 1
    assert dropped == Counter({fault: 1})


@pytest.mark.parametrize(
    ("box", "written"),
    [
        ((-10.0, -10.0, 2000.0, 2000.0), (0.0, 0.0, 1.0, 1.0)),
        ((-10.0, 10.0, 0.6, 20.0), (0.0, 0.02, 0.001, 0.04)),
        ((999.4, 10.0, 5000.0, 20.0), (0.999, 0.02, 1.0, 0.04)),
        ((300.0, 100.0, 300.0, 100.0), (0.3, 0.2, 0.3, 0.2)),  # no area, but in the image
        ((300.0, 0.0, 300.0, 500.0), (0.3, 0.0, 0.3, 1.0)),
        ((0.0, 0.0, 1000.0, 500.0), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_a_box_that_is_written(box: BoxXYXY, written: BoxXYXY) -> None:
    boxes, dropped = clean_boxes(record_of(("cat", box)))
    assert [item.box_xyxy for item in boxes] == [written]
    assert not dropped


@pytest.mark.parametrize(
    "boxes",
    [
        [(0.1, 0.2, 0.5, 0.9)],
        [(0.0, 0.0, 1.0, 1.0)],
        [(0.1, 0.2, 0.5, 0.9), (0.0, 0.0, 0.0, 0.0), (0.5, 0.5, 1.0005, 1.0)],  # sums of rounded numbers
        [(0.5, 0.5, 0.4, 0.4)],
        [(0.0, 0.0, 0.3, 0.3)] * 3,  # would else be said to be outside
    ],
)
def test_fractions_where_pixels_are_expected_are_named(boxes: list[BoxXYXY]) -> None:
    with pytest.raises(Rejected) as caught:
        clean_boxes(record_of(*(("cat", box) for box in boxes)))
    assert caught.value.reason == "boxes_not_in_pixels"
    assert re.fullmatch(r"the first box is \[0.*\] in an image of 1000x500 pixels", caught.value.detail)


@pytest.mark.parametrize(
    ("boxes", "sides_px"),
    [
        ([(0.1, 0.2, 0.5, 0.9), (10.0, 10.0, 20.0, 20.0)], (1000, 500)),
        ([(0.0, 0.0, 1.5, 0.5)], (1000, 500)),
        ([(0.1, 0.2, 0.5, 0.9)], (2, 2)),
        ([(0.5, 0.0, 1.0, 1.0)], (1000, 2)),
    ],
)
def test_small_boxes_are_boxes(boxes: list[BoxXYXY], sides_px: tuple[int, int]) -> None:
    clean, dropped = clean_boxes(record_of(*(("cat", box) for box in boxes), sides_px=sides_px))
    assert len(clean) + dropped.total() == len(boxes)
    assert clean


def test_every_dropped_box_is_counted_by_reason() -> None:
    bad: Labelled = [("a", (math.nan, 0.0, 1.0, 1.0)), ("b", (2.0, 0.0, 1.0, 1.0)), ("c", (-2.0, 0.0, -1.0, 1.0))]
    with pytest.raises(Rejected) as caught:
        clean_boxes(record_of(*bad, *bad[:2], bad[0], absent=["zebra"]))
    assert caught.value.detail.startswith("2 inverted, 3 not_finite, 1 outside; the first box is [")


def test_a_box_repeated_under_one_name_is_written_once_and_counted() -> None:
    """Some exports contain repeated boxes. Boxes are the same if they are equal after rounding."""
    box, near, other = (100.0, 100.0, 200.0, 200.0), (100.2, 100.1, 200.0, 200.0), (101.0, 100.0, 200.0, 200.0)
    boxes, dropped = clean_boxes(record_of(("cat", box), ("dog", box), ("cat", near), ("cat", other), ("cat", box)))
    assert [(item.phrase, item.box_xyxy_px) for item in boxes] == [("cat", box), ("dog", box), ("cat", other)]
    assert dropped == Counter({"duplicate": 2})


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VG", "VISJ"])
@pytest.mark.parametrize("style", BOX_STYLES)
def test_an_answer_names_a_box_once(task: str, style: str) -> None:
    record = record_of(*[("cat", (100.0, 100.0, 200.0, 200.0))] * 3)
    (rendering,) = rendered(task, record, style=style)
    assert len(re.findall(BOX[style], texts(rendering)[1])) == 1


def test_no_boxes_in_the_first_place_is_not_a_fault() -> None:
    assert clean_boxes(record_of(absent=["zebra"])) == ([], Counter())


def test_order_is_by_x1_then_y1_then_input() -> None:
    places = [(30.0, 20.0), (10.0, 40.0), (10.0, 20.0), (30.0, 20.0), (10.2, 10.0)]  # the last is written as x 0.010
    record = record_of(*((f"{i}", (x, y, 900.0 - i, 400.0)) for i, (x, y) in enumerate(places)))
    assert [box.phrase for box in clean_boxes(record)[0]] == ["4", "2", "1", "0", "3"]


def test_boxes_in_pixels_round_to_the_written_ones_whatever_the_image_is_shrunk_to() -> None:
    """Among them are coordinates half-way between two thousandths, such as 8 of 640 pixels."""
    draws = np.random.default_rng(0)
    for _ in range(2_000):
        width_px, height_px = draws.integers(20, 2000, 2).tolist()
        x1, x2 = sorted(draws.integers(-9, width_px + 9, 2).tolist())
        y1, y2 = sorted(draws.integers(-9, height_px + 9, 2).tolist())
        record = record_of(("cat", (8.0, 8.0, 16.0, 16.0)), ("cat", (x1, y1, x2, y2)), sides_px=(width_px, height_px))
        for resize_px in (None, int(draws.integers(10, 2000))):
            sides_px = shrunk_size(width_px, height_px, resize_px)
            for box in clean_boxes(record, resize_px)[0]:
                assert round_box(box.box_xyxy_px, *sides_px) == box.box_xyxy
                assert clamp_box(box.box_xyxy_px, *sides_px) == box.box_xyxy_px


def random_records(seed: int, phrases: int) -> Iterator[Record]:
    """Records with boxes of every kind: inside, on edges, partly and wholly outside, inverted, no area, not finite."""
    generator = np.random.default_rng(seed)
    for i in range(RECORDS):
        sides = (int(generator.integers(1, 5000)), int(generator.integers(1, 5000)))
        count = int(generator.integers(1, 7 if phrases > 1 else 4))
        regions = [(NAMES[generator.integers(phrases)], random_box(generator, sides)) for _ in range(count)]
        yield record_of(*regions, absent=["zebra"], record_no=i, sides_px=sides)


def random_box(generator: np.random.Generator, sides: tuple[int, int]) -> BoxXYXY:
    scale = np.array([*sides, *sides], float)
    corners = generator.uniform(-0.3, 1.3, 4)
    corners[2:] = np.maximum(corners[2:], corners[:2] + 1e-6)
    special = generator.random(4) < 0.15
    corners[special] = generator.choice([0.0, 1.0, -0.0, -1.0, 2.0, 0.5, 0.0005, 0.9995, 0.3335], int(special.sum()))
    corners *= scale
    kind = generator.random()
    if kind < 0.05:
        corners[generator.integers(4)] = generator.choice([math.nan, INFINITE, -INFINITE])
    elif kind < 0.1:
        corners[2:] = corners[:2]
    elif kind < 0.2:
        corners = np.round(corners)
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2, y2


def expected_boxes(record: Record) -> Labelled:
    """Return a record's boxes as section 6 of docs/design.md requires: clamped fractions, in order."""
    sides = (record.width_px, record.height_px) * 2
    kept: list[tuple[tuple[float, float], str, BoxXYXY]] = []
    for region in record.regions:
        x1, y1, x2, y2 = region.box_xyxy_px
        if not all(math.isfinite(value) for value in region.box_xyxy_px) or x1 > x2 or y1 > y2:
            continue
        fx1, fy1, fx2, fy2 = (
            min(1.0, max(0.0, value / side)) for value, side in zip(region.box_xyxy_px, sides, strict=True)
        )
        one_edge = any(round(a, 3) == round(b, 3) and round(a, 3) in (0, 1) for a, b in ((fx1, fx2), (fy1, fy2)))
        if not one_edge:
            kept.append(((round(fx1, 3), round(fy1, 3)), region.phrase, (fx1, fy1, fx2, fy2)))
    return [(phrase, box) for _, phrase, box in sorted(kept, key=lambda item: item[0])]


def decoded(text: str, style: str, label: str) -> Labelled:
    """The labels and boxes of a text, which must be nothing but these."""
    scale = 1.0 if style == "text" else 1000.0
    result: Labelled = []
    for item in re.finditer(f"({label}){BOX[style]}(&|$)", text):
        x1, y1, x2, y2 = (float(group) / scale for group in item.groups()[1:5])
        result.append((item[1].removesuffix("-"), (x1, y1, x2, y2)))
    assert re.fullmatch(f"({label}{BOX[style]}(&|$))*", text)
    assert "-0.000" not in text
    return result


def assert_close(result: Labelled, expected: Labelled) -> None:
    assert [label for label, _ in result] == [label for label, _ in expected]
    for (_, box), (_, source) in zip(result, expected, strict=True):
        assert max(abs(a - b) for a, b in zip(box, source, strict=True)) <= 0.0005 + 1e-9


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize(("task", "phrases"), [("DET", len(NAMES)), ("RANDDET", len(NAMES)), ("VG", 1)])
def test_answers_of_random_records_give_the_boxes_back(task: str, phrases: int, style: str) -> None:
    rejected = 0
    label = "(?:" + "|".join(re.escape(name) for name in NAMES[:phrases]) + ")-"
    for record in random_records(1, phrases):
        expected = expected_boxes(record)
        try:
            (rendering,) = rendered(task, record, style=style, templates=BARE)
        except Rejected as error:
            assert not expected
            assert error.reason == "all_boxes_dropped"
            rejected += 1
            continue
        assert_close(decoded(texts(rendering)[1], style, label), expected)
    assert 300 < rejected < RECORDS / 2


@pytest.mark.parametrize("style", BOX_STYLES)
def test_questions_of_random_regions_give_the_box_back(style: str) -> None:
    for record in random_records(2, 1):
        region = record.regions[0]
        single = record_of((region.phrase, region.box_xyxy_px), sides_px=(record.width_px, record.height_px))
        expected = expected_boxes(single)
        try:
            (rendering,) = rendered("REG", single, style=style, templates=BARE)
        except Rejected:
            assert not expected
        else:
            assert_close(decoded(filling(rendering), style, ""), [("", box) for _, box in expected])


@pytest.mark.parametrize("style", BOX_STYLES)
def test_searches_of_random_records_give_one_categorys_boxes_back(style: str) -> None:
    for record in random_records(3, len(NAMES)):
        expected = expected_boxes(record)
        try:
            (rendering,) = rendered("VISJ", record, style=style, templates=BARE)
        except Rejected:
            assert all(x1 == x2 or y1 == y2 for _, (x1, y1, x2, y2) in expected)
            continue
        sides = (record.width_px, record.height_px) * 2
        assert rendering.region_xyxy_px is not None
        x1, y1, x2, y2 = rendering.region_xyxy_px
        assert 0 <= x1 < x2 <= record.width_px
        assert 0 <= y1 < y2 <= record.height_px
        region = [value / side for value, side in zip(rendering.region_xyxy_px, sides, strict=True)]
        categories = {
            name for name, box in expected if max(abs(a - b) for a, b in zip(box, region, strict=True)) < 1e-9
        }
        actual = decoded(texts(rendering)[1], style, "")
        answers = [[("", box) for name, box in expected if name == category] for category in categories]
        matching = [answer for answer in answers if len(answer) == len(actual)]
        assert matching
        assert_close(actual, matching[0])
