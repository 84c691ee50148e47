"""Boxes within the record's own conversation (LAZY), written as in the answers of other tasks."""

from collections.abc import Sequence
from dataclasses import replace

from griffon_prep.records import BOX_MARK, Record, Rejected
from griffon_prep.render.boxes import check_pixels
from griffon_shards.grammar import checked_box, format_box
from griffon_shards.types import BoxXYXY


def write_boxes(record: Record, style: str) -> tuple[Record, int]:
    """Write a record's boxes where their marks are, in `phrase-box&phrase-box` an equal one once.

    Args:
        record: the record, with the true size of its image.
        style: how boxes are written, one of `BOX_STYLES`.

    Returns:
        The record, and the number of boxes that were written already.

    Raises:
        Rejected: `all_boxes_dropped`, if a box cannot be written; `boxes_not_in_pixels`.
    """
    check_pixels(record)
    left = [_written(record, box, style) for box in record.boxes_in_text]
    turns, repeated = [], 0
    for turn in record.turns:
        *leads, rest = turn.text.split(BOX_MARK)
        text, again = _joined(leads, left[: len(leads)])
        left = left[len(leads) :]
        turns.append(replace(turn, text=text + rest))
        repeated += again
    return replace(record, turns=tuple(turns), boxes_in_text=()), repeated


def _joined(leads: Sequence[str], boxes: Sequence[str]) -> tuple[str, int]:
    """Join each box with the text before it, without those that repeat another; and return the number of these."""
    out: list[str] = []
    row: list[tuple[str, str]] = []  # of boxes joined by `&`
    for lead, box in zip(leads, boxes, strict=True):
        continued = bool(row) and lead.startswith("&")
        if continued and any(box == other and _ends_with(before, lead[1:]) for before, other in row):
            continue
        row = [*row, (lead[1:], box)] if continued else [(lead, box)]
        out.append(lead + box)
    return "".join(out), len(boxes) - len(out)


def _ends_with(text: str, phrase: str) -> bool:
    """Whether the last words of a text are the phrase. The first box of a row follows a sentence or so."""
    before = text.removesuffix(phrase)
    return text.endswith(phrase) and (not before or not phrase or before[-1].isspace())


def _written(record: Record, box: BoxXYXY, style: str) -> str:
    rounded = checked_box(box, record.width_px, record.height_px)
    if isinstance(rounded, str):
        numbers = ", ".join(f"{corner:g}" for corner in box)
        raise Rejected(
            "all_boxes_dropped",
            f"{rounded}: the box [{numbers}] in the text, of an image of {record.width_px}x{record.height_px}",
        )
    return format_box(rounded, style)
