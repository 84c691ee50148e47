"""The types that builds and training share: a training sample as it is stored."""

from dataclasses import dataclass
from typing import Literal

BoxXYXY = tuple[float, float, float, float]
"""x1, y1, x2, y2; in pixels (names that end in `_px`) or as fractions of the image's sides."""

TASKS = ("LAZY", "DET", "RANDDET", "REG", "VG", "VISJ")
"""Task names; a task's position here is its code in `index.npy` and never changes."""

BOX_STYLES = ("text", "bin")
"""Styles of writing a box: `[0.120,0.034,0.560,0.800]` or `<bin_120><bin_34><bin_560><bin_800>`."""

IMAGE_TOKEN = "<image>"
REGION_TOKEN = "<region>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a conversation."""

    role: Literal["human", "gpt"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """One wording of a sample.

    Attributes:
        turns: the conversation.
        region_xyxy_px: the crop that `<region>` stands for, in pixels of the image, or None.
        boxes_xyxy_px: the boxes of all answers of DET, RANDDET, VG and VISJ, in the order in which they are written:
            in pixels of the image, clamped to it but not rounded. None in a set that was built before sets had them.
    """

    turns: tuple[Turn, ...]
    region_xyxy_px: BoxXYXY | None = None
    boxes_xyxy_px: tuple[BoxXYXY, ...] | None = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The origin of a sample.

    Attributes:
        annotation: path of the annotation file, relative to the data root.
        record: the record's number in it.
        image: path of the image as the annotation gives it, or the end of it (see `griffon_prep.images.stored_path`);
            empty for a text-only sample. None in a set that was built before sets had it.
    """

    annotation: str
    record: int
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sample, as a shard holds it.

    Attributes:
        key: `{tag}-{record_no:09d}`, unique in a set.
        image: the image's bytes as stored in the shard, or None for a text-only sample.
        image_format: the actual format of `image` (`JPEG`, `PNG`, `WEBP`, ...), empty without an image.
        width_px: the image's stored width, 0 without an image.
        height_px: the image's stored height, 0 without an image.
        task: one of `TASKS`.
        renderings: the K variants; at least one.
        origin: the record that it was made from.
    """

    key: str
    image: bytes | None
    image_format: str
    width_px: int
    height_px: int
    task: str
    renderings: tuple[Rendering, ...]
    origin: Origin

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation of variant 0."""
        return self.renderings[0].turns

    @property
    def region_xyxy_px(self) -> BoxXYXY | None:
        """The region of variant 0."""
        return self.renderings[0].region_xyxy_px

    @property
    def boxes_xyxy_px(self) -> tuple[BoxXYXY, ...] | None:
        """The boxes of variant 0."""
        return self.renderings[0].boxes_xyxy_px
