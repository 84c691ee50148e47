"""Records as readers return them, and the reasons for which a record is rejected."""

from dataclasses import dataclass

from griffon_shards.types import BoxXYXY, Turn

REASONS = {
    "bad_json": "the record is not valid JSON",
    "bad_record": "a field is missing or of the wrong kind",
    "no_turns": "the conversation is empty, has no answer, or has an answer without visible text",
    "several_pictures": "the record names several images, or its text contains <image> more than once",
    "picture_field_unknown": "an image or video is named in a field or by a placeholder that is not supported",
    "image_token_without_picture": "the text contains <image>, but the record has no image",
    "image_token_in_text": "a category or expression contains <image>, which a question may contain only once",
    "no_objects": "the image has no objects, and the annotation means it (does not count towards --max-rejects)",
    "excluded": "the image is in an exclusion list, or the key is (does not count towards --max-rejects)",
    "boxes_not_in_pixels": "all boxes lie within [0, 1], so they look normalized; boxes must be in pixels",
    "all_boxes_dropped": "every box is non-finite, inverted or outside the image",
    "path_outside_root": "the image path leads out of the image root",
    "picture_not_found": "there is no such file under the image root",
    "picture_unreadable": "the file is truncated, damaged or not an image",
    "size_mismatch": "the image size differs from the size in the record",
}
"""All reasons for rejecting a record, with an explanation."""

UNCOUNTED_REASONS = frozenset({"no_objects", "excluded"})
"""Reasons that do not point to a fault in the data. They never stop a build."""


def name_key(name: str) -> str:
    """Return the name with case folded and whitespace normalized, for comparing spellings."""
    return " ".join(name.split()).casefold()


def is_blank(text: str) -> bool:
    """Whether a text contains no visible character."""
    return not any(character.isprintable() and not character.isspace() for character in text)


class Rejected(Exception):
    """The record cannot become a sample. It is left out and counted by reason."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A named box: a category or expression, and the corners in pixels as the annotation gives them.

    A `crowd` box covers many objects of one category. It is never an answer, but the category counts as present.
    """

    phrase: str
    box_xyxy_px: BoxXYXY
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The annotation of one future sample, independent of the format that it was read from.

    Attributes:
        record_no: position in annotation order, after `split=` and before `limit=` and rejections.
        image_path: path of the image as the annotation gives it, or None for text only.
        width_px: image width that the annotation states, or 0.
        height_px: image height that the annotation states, or 0.
        regions: named boxes, in annotation order.
        turns: the conversation for LAZY; empty for the tasks that are rendered.
        absent_phrases: categories or expressions that the annotation explicitly marks as absent from the image.
        incomplete_phrases: categories with possibly more objects in the image than boxes. No answer can list all of
            them, so their boxes are left out; they do not count as absent either.
        never_absent_phrases: further names without boxes that must not be called absent: the parent categories of
            something in the image.
        only_these_absent: only `absent_phrases` may be called absent, because not every category was annotated (LVIS).
        image_elsewhere: alternative paths at which published archives store the image.
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
