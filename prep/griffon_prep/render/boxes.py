"""The boxes of a record that may be written, rounded and in the order of the answer grammar."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from griffon_prep.records import Record, Rejected
from griffon_shards.grammar import checked_box
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanBox:
    """A box that may be written.

    Attributes:
        phrase: category or expression.
        box_xyxy: fractions of the picture's sides, clamped and rounded.
        box_xyxy_px: the same in pixels, clamped to the picture and not rounded.
    """

    phrase: str
    box_xyxy: BoxXYXY
    box_xyxy_px: BoxXYXY


def clean_boxes(record: Record) -> tuple[list[CleanBox], Counter[str]]:
    """The boxes that may be written, by x1, then y1, then input order; and the others counted by reason.

    Raises:
        Rejected: `all_boxes_dropped`, when the record had boxes other than crowds and none is left.
    """
    width_px, height_px = record.width_px, record.height_px
    boxes: list[CleanBox] = []
    dropped: Counter[str] = Counter()
    for region in record.regions:
        if region.crowd:
            dropped["crowd"] += 1
            continue
        rounded = checked_box(region.box_xyxy_px, width_px, height_px)
        if isinstance(rounded, str):
            dropped[rounded] += 1
            continue
        x1, y1, x2, y2 = region.box_xyxy_px
        clamped = (max(0.0, x1), max(0.0, y1), min(x2, float(width_px)), min(y2, float(height_px)))
        boxes.append(CleanBox(phrase=region.phrase, box_xyxy=rounded, box_xyxy_px=clamped))
    if not boxes and len(record.regions) > dropped["crowd"]:
        raise Rejected("all_boxes_dropped", ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())))
    boxes.sort(key=lambda box: box.box_xyxy[:2])
    return boxes, dropped


def unique_phrases(boxes: Iterable[CleanBox]) -> list[str]:
    """The phrases of some boxes, each once, in order of first appearance."""
    return list(dict.fromkeys(box.phrase for box in boxes))


def check_question_text(phrases: Iterable[str]) -> None:
    """Reject a record whose phrases would put a second `<image>` into a question."""
    for phrase in phrases:
        if IMAGE_TOKEN in phrase:
            raise Rejected("image_token_in_text", f"{phrase!r:.80}")
