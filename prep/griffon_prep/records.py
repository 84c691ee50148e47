"""Records as readers return them, and the reasons for which a record is rejected."""

from dataclasses import dataclass, replace

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
    "foreign_boxes": "the conversation has boxes in another model's notation, which would be learned as they are",
    "excluded": "the image is in an exclusion list, or the key is (does not count towards --max-rejects)",
    "boxes_not_in_pixels": "all boxes lie within [0, 1], so they look normalized; boxes must be in pixels",
    "all_boxes_dropped": "every box is non-finite, inverted or outside the image",
    "path_outside_root": "the image path leads out of the image root",
    "picture_not_found": "there is no such file under the image root",
    "picture_unreadable": "the file is truncated, damaged or not an image",
    "size_mismatch": "the image size differs from the size in the record",
}
"""All reasons for rejecting a record, with an explanation."""

BOX_MARK = "<bbox>"
"""Stands for a box in the turns of a record that has `boxes_in_text`."""

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

    In a record with `units_per_side` the corners are in those units until `in_pixels` converts them.

    A `crowd` box covers many objects of one category. It is never an answer, but the category counts as present. The
    same is true of a box that the manifest line leaves out (`left_out`).
    """

    phrase: str
    box_xyxy_px: BoxXYXY
    crowd: bool = False
    left_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The annotation of one future sample, independent of the format that it was read from.

    Attributes:
        record_no: position in annotation order, after `split=` and before `limit=` and rejections.
        image_path: path of the image as the annotation gives it, or None for text only.
        width_px: image width that the annotation states, or 0.
        height_px: image height that the annotation states, or 0.
        units_per_side: number of units that each side of the image has in the record's boxes, such as 1 for fractions;
            None if the boxes are in pixels.
        regions: named boxes, in annotation order.
        turns: the conversation for LAZY; empty for the tasks that are rendered.
        absent_phrases: categories or expressions that the annotation explicitly marks as absent from the image.
        incomplete_phrases: categories with possibly more objects in the image than boxes. No answer can list all of
            them, so their boxes are left out; they do not count as absent either.
        never_absent_phrases: further names without boxes that must not be called absent: the parent categories of
            something in the image.
        only_these_absent: only `absent_phrases` may be called absent, because not every category was annotated (LVIS).
        image_elsewhere: alternative paths at which published archives store the image.
        image_file: absolute path of the image on this machine, if the annotation tells it exactly, or None.
        image_bytes: the image itself, if the annotation contains it; `image_path` is then its name in messages.
        tool_turns_images: programs that write such annotations show images by their EXIF orientation, so only sides
            that are swapped tell whether boxes refer to the stored image.
        image_unnamed: the annotation has no name for the image that it contains; `image_path` says where it is instead.
        boxes_in_text: corners of the boxes that the `BOX_MARK`s in `turns` stand for, in their order.
    """

    record_no: int
    image_path: str | None
    width_px: int = 0
    height_px: int = 0
    units_per_side: float | None = None
    regions: tuple[Region, ...] = ()
    turns: tuple[Turn, ...] = ()
    absent_phrases: tuple[str, ...] = ()
    incomplete_phrases: tuple[str, ...] = ()
    never_absent_phrases: tuple[str, ...] = ()
    only_these_absent: bool = False
    image_elsewhere: tuple[str, ...] = ()
    image_file: str | None = None
    image_bytes: bytes | None = None
    tool_turns_images: bool = False
    image_unnamed: bool = False
    boxes_in_text: tuple[BoxXYXY, ...] = ()

    @property
    def image_paths(self) -> tuple[str, ...]:
        """All paths that the image may have; none for text only."""
        return () if self.image_path is None else (self.image_path, *self.image_elsewhere)

    @property
    def needs_size(self) -> bool:
        """Whether the record has boxes and does not state the size of its image."""
        return bool(self.regions or self.boxes_in_text) and not (self.width_px and self.height_px)


def in_pixels(record: Record) -> Record:
    """Return the record, whose image's size must be known, with its boxes in pixels."""
    if record.units_per_side is None:
        return record
    x_scale, y_scale = record.width_px / record.units_per_side, record.height_px / record.units_per_side

    def scaled(box: BoxXYXY) -> BoxXYXY:
        x1, y1, x2, y2 = box
        # To a millionth of a pixel, without the noise of binary fractions, which would decide ties of later roundings.
        return round(x1 * x_scale, 6), round(y1 * y_scale, 6), round(x2 * x_scale, 6), round(y2 * y_scale, 6)

    return replace(
        record,
        units_per_side=None,
        regions=tuple(replace(region, box_xyxy_px=scaled(region.box_xyxy_px)) for region in record.regions),
        boxes_in_text=tuple(map(scaled, record.boxes_in_text)),
    )
