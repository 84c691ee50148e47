"""The answer grammar: exact wording, read back without loss, and nothing else taken for it."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from griffon_shards.grammar import (
    LABELLED_TASKS,
    box_fault,
    format_answer,
    format_box,
    labels_of,
    parse_answer,
    parse_boxes_in,
    round_box,
)
from griffon_shards.types import BOX_STYLES, BoxXYXY

BOX = (0.12, 0.034, 0.56, 0.8)
TEXT_BOX = "[0.120,0.034,0.560,0.800]"
BIN_BOX = "<bin_120><bin_34><bin_560><bin_800>"
WIDTH_PX, HEIGHT_PX = 640, 480

sides_px = st.integers(1, 20_000)
positions_px = st.floats(-5_000, 50_000)
boxes_px = st.tuples(positions_px, positions_px, positions_px, positions_px)
# A label may hold anything but a whole box, with which no grammar could tell the two apart.
labels = st.text(min_size=1).filter(lambda text: not any(parse_boxes_in(text, style) for style in BOX_STYLES))


def test_boxes_are_written_as_released_weights_write_them() -> None:
    assert format_box(BOX, "text") == TEXT_BOX
    assert format_box(BOX, "bin") == BIN_BOX
    assert format_box((0.0, 0.0, 1.0, 1.0), "text") == "[0.000,0.000,1.000,1.000]"
    assert format_box((0.0, 0.0, 1.0, 1.0), "bin") == "<bin_0><bin_0><bin_1000><bin_1000>"


def test_all_thousandths_keep_their_bin() -> None:
    for i in range(1001):
        assert format_box((i / 1000,) * 4, "bin") == f"<bin_{i}>" * 4
        assert format_box((i / 1000,) * 4, "text") == "[" + ",".join([f"{i / 1000:.3f}"] * 4) + "]"


def test_answers_are_written_as_released_weights_write_them() -> None:
    assert format_answer([("cat", BOX), ("dog", BOX)], "text") == f"cat-{TEXT_BOX}&dog-{TEXT_BOX}"
    assert format_answer([("", BOX), ("", BOX)], "bin") == f"{BIN_BOX}&{BIN_BOX}"
    assert format_answer([], "text") == format_answer([], "bin") == "None"


@pytest.mark.parametrize(
    ("box_px", "expected"),
    [
        ((64.0, 48.0, 320.0, 240.0), (0.1, 0.1, 0.5, 0.5)),
        ((-10.0, -0.1, 900.0, 481.0), (0.0, 0.0, 1.0, 1.0)),
        ((1.0, 1.0, 2.0, 2.0), (0.002, 0.002, 0.003, 0.004)),
        ((-0.0, -0.0, 640.0, 480.0), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_pixels_become_clamped_thousandths_of_the_sides(box_px: BoxXYXY, expected: BoxXYXY) -> None:
    assert round_box(box_px, WIDTH_PX, HEIGHT_PX) == expected
    assert format_box(round_box(box_px, WIDTH_PX, HEIGHT_PX), "text") == format_box(expected, "text")


@given(width_px=sides_px, height_px=sides_px, items=st.lists(st.tuples(labels, boxes_px), max_size=5))
@example(width_px=7, height_px=7, items=[("a-b & c", (-0.0, 1.0, 3.5, 7.0)), ("&-", (0.0035, 0.0, 7.0, 9.0))])
@example(width_px=1, height_px=1, items=[("None", (0.0005, 0.0015, 0.9995, 0.9985)), ("\n", (0.0, 0.0, 1.0, 1.0))])
@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize("task", [*LABELLED_TASKS, "VISJ"])
def test_what_is_written_is_read_back(
    task: str, style: str, width_px: int, height_px: int, items: list[tuple[str, BoxXYXY]]
) -> None:
    written = [(label if task in LABELLED_TASKS else "", box) for label, box in items]
    answer = format_answer([(label, round_box(box, width_px, height_px)) for label, box in written], style)
    parsed = parse_answer(answer, task, style)
    assert [label for label, _ in parsed] == [label for label, _ in written]
    assert labels_of([answer, "None", answer], task, style) == 2 * [label for label, _ in written]
    for (_, box), (_, box_px) in zip(parsed, written, strict=True):
        for value, source_px, side_px in zip(box, box_px, (width_px, height_px) * 2, strict=True):
            assert abs(value - min(max(source_px / side_px, 0.0), 1.0)) <= 0.0005 + 1e-9
    assert format_answer(parsed, style) == answer


@pytest.mark.parametrize(
    ("task", "style", "answer"),
    [
        ("DET", "text", ""),
        ("DET", "text", "none"),
        ("DET", "text", "None&"),
        ("DET", "text", TEXT_BOX),
        ("DET", "text", f"-{TEXT_BOX}"),
        ("DET", "text", f"cat{TEXT_BOX}"),
        ("DET", "text", f"cat-{TEXT_BOX}&"),
        ("DET", "text", f"cat-{TEXT_BOX}\n"),
        ("DET", "text", f"cat-{TEXT_BOX} and more"),
        ("DET", "text", f"cat-{BIN_BOX}"),
        ("DET", "bin", f"cat-{TEXT_BOX}"),
        ("VG", "text", "cat-[0.12,0.034,0.560,0.800]"),
        ("VG", "text", "cat-[0.120, 0.034, 0.560, 0.800]"),
        ("VG", "text", "cat-[0.120,0.034,0.560]"),
        ("VG", "text", "cat-[-0.120,0.034,0.560,0.800]"),
        ("VG", "text", "cat-[.120,0.034,0.560,0.800]"),
        ("VG", "text", "cat-[٠.120,0.034,0.560,0.800]"),
        ("VG", "bin", "cat-<bin_120><bin_034><bin_560><bin_800>"),
        ("VG", "bin", "cat-<bin_120><bin_34><bin_560>"),
        ("VISJ", "text", f"cat-{TEXT_BOX}"),
        ("VISJ", "text", f"&{TEXT_BOX}"),
        ("VISJ", "text", f"{TEXT_BOX}&&{TEXT_BOX}"),
        ("VISJ", "text", f"{TEXT_BOX}&"),
        ("VISJ", "text", f"{TEXT_BOX}{TEXT_BOX}"),
    ],
)
def test_what_does_not_fit_the_grammar_is_refused(task: str, style: str, answer: str) -> None:
    with pytest.raises(ValueError, match=f"answer of task {task}"):
        parse_answer(answer, task, style)


@pytest.mark.parametrize(
    ("style", "answer"),
    [("text", "cat-[0.120,0.034,0.560,1.001]"), ("bin", "cat-<bin_0><bin_0><bin_1001><bin_5>")],
)
def test_a_coordinate_above_one_is_refused(style: str, answer: str) -> None:
    with pytest.raises(ValueError, match="above 1 at character 0"):
        parse_answer(answer, "DET", style)


def test_the_message_says_where_the_answer_goes_wrong() -> None:
    with pytest.raises(ValueError, match=re.escape(f"at character 30: 'cat-{TEXT_BOX}&dog'")):
        parse_answer(f"cat-{TEXT_BOX}&dog", "DET", "text")


def test_boxes_are_found_anywhere_in_a_text() -> None:
    text = f"What is in {TEXT_BOX}, and in [1,2]? And {BIN_BOX}; [0.000,0.000,1.000,1.000]."
    assert parse_boxes_in(text, "text") == [BOX, (0.0, 0.0, 1.0, 1.0)]
    assert parse_boxes_in(text, "bin") == [BOX]


@pytest.mark.parametrize(
    ("box_px", "fault"),
    [
        ((10.0, 10.0, 20.0, 20.0), None),
        ((-5.0, -5.0, 700.0, 500.0), None),
        ((10.0, 10.0, 10.0, 10.0), None),  # a point inside is small, and written
        ((0.0, 0.0, 1.0, 1.0), None),
        ((math.nan, 10.0, 20.0, 20.0), "not_finite"),
        ((10.0, 10.0, math.inf, 20.0), "not_finite"),
        ((10.0, -math.inf, 20.0, 20.0), "not_finite"),
        ((20.0, 10.0, 10.0, 20.0), "inverted"),
        ((10.0, 20.0, 20.0, 10.0), "inverted"),
        ((700.0, 10.0, 650.0, 20.0), "inverted"),
        ((650.0, 10.0, 700.0, 20.0), "outside"),
        ((-20.0, 10.0, -10.0, 20.0), "outside"),
        ((10.0, 480.0, 20.0, 490.0), "outside"),
        ((10.0, -9.0, 20.0, 0.0), "outside"),
        ((-9.0, 10.0, 0.3, 20.0), "outside"),  # 0.3 px of 640 round to 0
        ((639.7, 10.0, 640.0, 20.0), "outside"),
        ((-9.0, 10.0, 0.4, 20.0), None),  # 0.4 px round to 0.001
    ],
)
def test_boxes_of_which_nothing_is_left_are_named(box_px: BoxXYXY, fault: str | None) -> None:
    assert box_fault(box_px, WIDTH_PX, HEIGHT_PX) == fault
