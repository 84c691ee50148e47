"""Selects the usable boxes of a record, rounds them, and sorts them in the order of the answer grammar."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from griffon_prep.images import shrunk_size
from griffon_prep.records import Record, Rejected
from griffon_shards.grammar import checked_box, clamp_box
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

_NOT_USED = ("crowd", "left_out", "not_exhaustive")  # boxes that are right, and no answer
_FRACTION_SLACK = 1e-3  # sums of rounded fractions may come out a little larger than 1
_LEAST_SIDE_PX = 16  # in smaller images, a box within the upper left pixel may be a real object


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanBox:
    """A box that can be written into an answer.

    Attributes:
        phrase: category or expression.
        box_xyxy: fractions of the image's sides, clamped and rounded.
        box_xyxy_px: the same box in pixels of the stored image, clamped to it but not rounded.
    """

    phrase: str
    box_xyxy: BoxXYXY
    box_xyxy_px: BoxXYXY


def clean_boxes(record: Record, resize_px: int | None = None) -> tuple[list[CleanBox], Counter[str]]:
    """Return the usable boxes, sorted by x1, then y1, then input order; and the number of other boxes by reason.

    Args:
        record: the record, with the true size of its image.
        resize_px: longest side that the image is shrunk to, or None to keep its size. Boxes are scaled before they are
            rounded, so that the boxes in pixels round to those in answers whatever the size.

    Raises:
        Rejected: `all_boxes_dropped`, if none of the boxes is usable (crowds and categories that are not exhaustive do
            not count); `boxes_not_in_pixels`.
    """
    width_px, height_px = shrunk_size(record.width_px, record.height_px, resize_px)
    check_pixels(record)
    boxes: list[CleanBox] = []
    dropped: Counter[str] = Counter()
    written: set[tuple[str, BoxXYXY]] = set()
    for region in record.regions:
        if region.crowd or region.left_out or region.phrase in record.incomplete_phrases:
            dropped["crowd" if region.crowd else "left_out" if region.left_out else "not_exhaustive"] += 1
            continue
        box_xyxy_px = region.box_xyxy_px
        if width_px != record.width_px or height_px != record.height_px:
            box_xyxy_px = _scaled(box_xyxy_px, width_px / record.width_px, height_px / record.height_px)
        rounded = checked_box(box_xyxy_px, width_px, height_px)
        if isinstance(rounded, str):
            dropped[rounded] += 1
            continue
        if (region.phrase, rounded) in written:  # a box listed twice would teach the model to repeat it
            dropped["duplicate"] += 1
            continue
        written.add((region.phrase, rounded))
        clamped = clamp_box(box_xyxy_px, width_px, height_px)
        boxes.append(CleanBox(phrase=region.phrase, box_xyxy=rounded, box_xyxy_px=clamped))
    if not boxes and len(record.regions) > sum(dropped[reason] for reason in _NOT_USED):
        counted = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()) if count)
        raise Rejected("all_boxes_dropped", f"{counted}; {_first_box(record, record.regions[0].box_xyxy_px)}")
    boxes.sort(key=lambda box: box.box_xyxy[:2])
    return boxes, dropped


def _scaled(box_xyxy_px: BoxXYXY, x_scale: float, y_scale: float) -> BoxXYXY:
    x1, y1, x2, y2 = box_xyxy_px
    return x1 * x_scale, y1 * y_scale, x2 * x_scale, y2 * y_scale


def no_boxes(record: Record) -> Rejected:
    """Return the rejection of a record without usable boxes."""
    skipped = (
        f" except {len(record.regions)} of crowds, of categories that are not exhaustive, or left out by difficult="
    )
    return Rejected("no_objects", f"no boxes{skipped if record.regions else ''}")


def check_pixels(record: Record) -> None:
    """Reject a record whose boxes seem to be fractions of the image's sides."""
    if min(record.width_px, record.height_px) < _LEAST_SIDE_PX:
        return
    boxes = [*(region.box_xyxy_px for region in record.regions), *record.boxes_in_text]
    corners = [corner for box in boxes for corner in box]
    if all(-_FRACTION_SLACK <= corner <= 1 + _FRACTION_SLACK for corner in corners) and any(
        corner > 0 for corner in corners
    ):
        raise Rejected("boxes_not_in_pixels", _first_box(record, boxes[0]))


def _first_box(record: Record, box_xyxy_px: BoxXYXY) -> str:
    box = ", ".join(f"{corner:g}" for corner in box_xyxy_px)
    return f"the first box is [{box}] in an image of {record.width_px}x{record.height_px} pixels"


def unique_phrases(boxes: Iterable[CleanBox]) -> list[str]:
    """Return the distinct phrases of the boxes, in order of first appearance."""
    return list(dict.fromkeys(box.phrase for box in boxes))


def check_question_text(phrases: Iterable[str]) -> None:
    """Reject a record with `<image>` in a phrase, which would add a second `<image>` to a question."""
    for phrase in phrases:
        if IMAGE_TOKEN in phrase:
            raise Rejected("image_token_in_text", f"{phrase!r:.80}")
