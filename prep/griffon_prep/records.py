"""What a reader gives: one Record a sample, or the reason why a record cannot be used."""

from dataclasses import dataclass

from griffon_shards.types import BoxXYXY, Turn

REASONS = {
    "bad_json": "the record is not valid JSON",
    "bad_record": "a field is missing or of the wrong kind",
    "no_turns": "the conversation is empty, nobody answers in it, or an answer is blank",
    "several_pictures": "the record names several pictures, or its text has several <image>",
    "picture_field_unknown": "a picture or video is named in a field, or by a mark in the text, that is not read",
    "image_token_without_picture": "the text has <image> and the record has no picture",
    "image_token_in_text": "a category or expression has <image> in it, which a question cannot hold twice",
    "no_objects": "the picture rightly has no objects (does not count towards --max-rejects)",
    "boxes_not_in_pixels": "all its boxes lie within [0, 1], like fractions of the sides; boxes are in pixels",
    "all_boxes_dropped": "every box it had is not finite, inverted or outside the picture",
    "path_outside_root": "the picture's path leaves the image root",
    "picture_not_found": "no such file under the image root",
    "picture_unreadable": "the picture is cut short or damaged, or not a picture",
    "size_mismatch": "the picture's size is not the one that the record states",
}
"""Every reason a record can be rejected for."""

UNCOUNTED_REASONS = frozenset({"no_objects"})
"""Reasons that are no fault of the data and never stop a build."""


def name_key(name: str) -> str:
    """What two spellings of a name share that differ in case or in the blanks around and in them."""
    return " ".join(name.split()).casefold()


def is_blank(text: str) -> bool:
    """Whether a text has nothing in it that could be seen."""
    return not any(character.isprintable() and not character.isspace() for character in text)


class Rejected(Exception):
    """The record cannot become a sample; it is left out and counted by reason."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A named box: a category or an expression, and its corners in pixels as the annotation gives them.

    A `crowd` box stands for many things of its kind at once: it is no answer, but its kind is not absent either.
    """

    phrase: str
    box_xyxy_px: BoxXYXY
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an annotation says of one future sample, whatever format it was written in.

    Attributes:
        record_no: place in annotation order after `split=`, before `limit=` and rejections.
        image_path: the picture, as the annotation names it, or None for text alone.
        width_px: the picture's width as the annotation states it, 0 where it does not.
        height_px: the same for the height.
        regions: named boxes, in annotation order.
        turns: the conversation, for LAZY; empty for the tasks that are rendered.
        absent_phrases: categories or expressions which the annotation itself says are not in the picture.
        incomplete_phrases: categories of which there may be more in the picture than have boxes: no answer can name
            all of them, so their boxes are left out, and they are not absent either.
        never_absent_phrases: further names which must not be called absent, though no box has them: those of kinds
            that something in the picture belongs to.
        only_these_absent: nothing else may be called absent, for the annotation looked for some things only (LVIS).
        image_elsewhere: other places where publishers' archives put the picture.
    """

    record_no: int
    image_path: str | None
    width_px: int = 0
    height_px: int = 0
    regions: tuple[Region, ...] = ()
    turns: tuple[Turn, ...] = ()
    absent_phrases: tuple[str, ...] = ()
    incomplete_phrases: tuple[str, ...] = ()
    never_absent_phrases: tuple[str, ...] = ()
    only_these_absent: bool = False
    image_elsewhere: tuple[str, ...] = ()
