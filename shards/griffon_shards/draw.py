"""Draw boxes and labels onto an image."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer, parse_boxes_in
from griffon_shards.images import ImageError, decode
from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY, Sample

_COLOURS = (
    "#e6194b",
    "#3cb44b",
    "#4363d8",
    "#f58231",
    "#911eb4",
    "#008080",
    "#9a6324",
    "#800000",
    "#000075",
    "#f032e6",
)
_REGION_COLOUR = "#ffe119"


def labelled_boxes(sample: Sample, style: str) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (as fractions) in the sample's conversation. The box of a REG sample is in its question."""
    labelled: list[tuple[str, BoxXYXY]] = []
    for question, answer in zip(sample.turns[::2], sample.turns[1::2], strict=False):
        if sample.task in ANSWERED_WITH_BOXES:
            labelled += parse_answer(answer.text, sample.task, style)
        elif sample.task == "REG":
            labelled += [(answer.text, box) for box in parse_boxes_in(question.text, style)]
    return labelled


def draw_sample(sample: Sample, style: str) -> Image.Image:
    """The sample's image with its boxes and labels, and the region of a VISJ sample in yellow.

    Raises:
        DataError: the sample has no image, or its image does not decode.
    """
    if sample.image is None:
        raise DataError(f"{sample.key}: has no image to draw on")
    try:
        image = decode(sample.image)
    except ImageError as error:
        raise DataError(f"{sample.key}: its image does not decode: {error}") from error
    width_px, height_px = image.size
    boxes = [
        (label, (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px))
        for label, (x1, y1, x2, y2) in labelled_boxes(sample, style)
    ]
    draw_boxes(image, boxes, sample.region_xyxy_px)
    return image


def draw_boxes(image: Image.Image, boxes: Sequence[tuple[str, BoxXYXY]], region_xyxy_px: BoxXYXY | None = None) -> None:
    """Draw labelled boxes (in pixels) onto an image, in one colour per label, and a region in yellow."""
    draw = ImageDraw.Draw(image)
    side_px = max(image.size)
    line_px = max(1, side_px // 300)
    font = ImageFont.load_default(size=max(10, side_px // 45))
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(dict.fromkeys(b[0] for b in boxes))}
    for label, box_xyxy_px in boxes:
        box = _onto_pixels(box_xyxy_px, image)
        draw.rectangle(box, outline=colours[label], width=line_px)
        label = " ".join(label.split())
        if label:
            corner = (max(0.0, min(box[0], image.width - draw.textlength(label, font=font))), box[1])
            draw.rectangle(draw.textbbox(corner, label, font=font), fill=colours[label])
            draw.text(corner, label, fill="white", font=font)
    if region_xyxy_px is not None:
        draw.rectangle(_onto_pixels(region_xyxy_px, image), outline=_REGION_COLOUR, width=2 * line_px)


def _onto_pixels(box_xyxy_px: BoxXYXY, image: Image.Image) -> BoxXYXY:
    """The box with its edges inside the image: a line at x = width would not be visible.

    Pillow refuses a box whose corners are swapped, which a model may answer.
    """
    (x1, x2), (y1, y2) = sorted(box_xyxy_px[::2]), sorted(box_xyxy_px[1::2])
    right, bottom = image.width - 1, image.height - 1
    return min(x1, right), min(y1, bottom), min(x2, right), min(y2, bottom)
