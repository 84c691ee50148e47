"""The answer grammar of released Griffon-G weights: how boxes are written, and read back.

A coordinate is a fraction of the image's side with exactly three decimals. The boxes of an answer are joined by `&`.
In tasks with labels, each box is preceded by its label and a hyphen. An answer without boxes is `None`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from griffon_shards.types import BoxXYXY

NO_BOXES = "None"
_COORDINATE = {"text": r"[0-9]\.[0-9]{3}", "bin": r"(?:0|[1-9][0-9]{0,3})"}
_BOX = {"text": r"\[{0},{0},{0},{0}\]", "bin": r"<bin_{0}><bin_{0}><bin_{0}><bin_{0}>"}
_BOX_PATTERN = {style: box.format(f"({_COORDINATE[style]})") for style, box in _BOX.items()}
_BOX_IN_TEXT = {style: re.compile(box) for style, box in _BOX_PATTERN.items()}
_LABEL = {
    (style, labelled): re.compile(
        ("(.+?)-" if labelled else "()") + box.format(_COORDINATE[style]) + "(?:&|$)", re.DOTALL
    )
    for style, box in _BOX.items()
    for labelled in (True, False)
}
_ITEM = {
    (style, labelled): re.compile(("(.+?)-" if labelled else "()") + box + "(?:&|$)", re.DOTALL)
    for style, box in _BOX_PATTERN.items()
    for labelled in (True, False)
}
LABELLED_TASKS = ("DET", "RANDDET", "VG")
"""Tasks whose answers carry `label-` in front of each box; VISJ answers are bare boxes, REG and LAZY have none."""
ANSWERED_WITH_BOXES = (*LABELLED_TASKS, "VISJ")


def round_box(box_xyxy_px: BoxXYXY, width_px: int, height_px: int) -> BoxXYXY:
    """The box as fractions of the image's sides, clamped to [0, 1] and rounded to three decimals.

    The box must be finite; whether it is worth writing (docs/design.md, section 6) is for the caller to decide.
    """
    x1, y1, x2, y2 = box_xyxy_px
    return (
        _fraction(x1, width_px),
        _fraction(y1, height_px),
        _fraction(x2, width_px),
        _fraction(y2, height_px),
    )


def clamp_box(box_xyxy_px: BoxXYXY, width_px: int, height_px: int) -> BoxXYXY:
    """The part of a box that is in the image, not rounded."""
    x1, y1, x2, y2 = box_xyxy_px
    return max(0.0, x1), max(0.0, y1), min(x2, float(width_px)), min(y2, float(height_px))


def _fraction(position_px: float, side_px: int) -> float:
    fraction = position_px / side_px
    if fraction <= 0.0:
        return 0.0  # and never -0.0, which would be written with its sign
    return 1.0 if fraction >= 1.0 else round(fraction, 3)


def format_box(box_xyxy: BoxXYXY, style: str) -> str:
    """Write a rounded box (fractions, from `round_box`) in `style`, one of `BOX_STYLES`."""
    if style == "text":
        return "[{:.3f},{:.3f},{:.3f},{:.3f}]".format(*box_xyxy)
    return "".join(f"<bin_{round(value * 1000)}>" for value in box_xyxy)


def format_answer(boxes: Sequence[tuple[str, BoxXYXY]], style: str) -> str:
    """Write labelled boxes (fractions) as one answer; an empty label writes the box alone."""
    if not boxes:
        return NO_BOXES
    return "&".join(f"{label}-{format_box(box, style)}" if label else format_box(box, style) for label, box in boxes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBox:
    """A box in a text: characters [start, end), with its label if it has one, and the box as fractions."""

    start: int
    end: int
    label: str
    box_xyxy: BoxXYXY


def parse_answer(answer: str, task: str, style: str) -> list[tuple[str, BoxXYXY]]:
    """Read an answer of a box-writing task back: labels (empty for VISJ) and boxes as fractions.

    Raises:
        ValueError: the text is not of the grammar, or a coordinate is outside [0, 1].
    """
    return [(label, box) for _, _, label, box in _written(answer, task, style)]


def locate_answer(answer: str, task: str, style: str) -> list[WrittenBox]:
    """`parse_answer` with the characters that write each label and box."""
    return [
        WrittenBox(start=start, end=end, label=label, box_xyxy=box)
        for start, end, label, box in _written(answer, task, style)
    ]


def _written(answer: str, task: str, style: str) -> list[tuple[int, int, str, BoxXYXY]]:
    """Start, end, label and box of everything that an answer lists."""
    if answer == NO_BOXES:
        return []
    item = _ITEM[style, task in LABELLED_TASKS]
    boxes, position = [], 0
    while position < len(answer):
        match = item.match(answer, position)
        if match is None or (match.end() == len(answer) and answer.endswith("&")):
            raise ValueError(
                f"not an answer of task {task} with {style} boxes, at character {position}: {answer!r:.200}"
            )
        box = _box(match.groups()[1:], style)
        if max(box) > 1.0:
            raise ValueError(f"a coordinate is above 1 at character {position}: {answer!r:.200}")
        end = match.end()
        boxes.append((position, end - (answer[end - 1] == "&"), match.group(1), box))
        position = end
    if not boxes:
        raise ValueError(f"an answer of task {task} is empty; no box at all is written {NO_BOXES!r}")
    return boxes


def labels_of(answers: Sequence[str], task: str, style: str) -> list[str]:
    """The labels of all boxes in answers of a box-writing task, in order: `parse_answer` without numbers and checks.

    It takes a sixth of the time. Labels of VISJ are empty.
    """
    label = _LABEL[style, task in LABELLED_TASKS]
    return [name for answer in answers for name in label.findall(answer)]


def parse_boxes_in(text: str, style: str) -> list[BoxXYXY]:
    """All boxes (fractions) in a text, in order."""
    return [_box(match.groups(), style) for match in _BOX_IN_TEXT[style].finditer(text)]


def locate_boxes_in(text: str, style: str) -> list[WrittenBox]:
    """`parse_boxes_in` with the characters that write each box, without labels."""
    return [
        WrittenBox(start=match.start(), end=match.end(), label="", box_xyxy=_box(match.groups(), style))
        for match in _BOX_IN_TEXT[style].finditer(text)
    ]


def count_boxes(text: str, style: str) -> int:
    """Number of boxes in a text."""
    return len(_BOX_IN_TEXT[style].findall(text))


def _box(numbers: Sequence[str], style: str) -> BoxXYXY:
    scale = 1.0 if style == "text" else 1000.0
    x1, y1, x2, y2 = (float(number) / scale for number in numbers)
    return x1, y1, x2, y2


def box_fault(box_xyxy_px: BoxXYXY, width_px: int, height_px: int) -> str | None:
    """The reason why a box of an annotation must not be written, or None if it may."""
    checked = checked_box(box_xyxy_px, width_px, height_px)
    return checked if isinstance(checked, str) else None


def checked_box(box_xyxy_px: BoxXYXY, width_px: int, height_px: int) -> BoxXYXY | str:
    """The box rounded, as `round_box` returns it, or the reason why it must not be written."""
    x1, y1, x2, y2 = box_xyxy_px
    if not (isfinite(x1) and isfinite(y1) and isfinite(x2) and isfinite(y2)):
        return "not_finite"
    if x1 > x2 or y1 > y2:
        return "inverted"
    x1, y1, x2, y2 = rounded = round_box(box_xyxy_px, width_px, height_px)
    if x2 == 0.0 or y2 == 0.0 or x1 == 1.0 or y1 == 1.0:  # in order, so both ends are there
        return "outside"
    return rounded
