"""Boxes and labels drawn onto a sample's picture, to look at."""

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
    """Labels and boxes (fractions) that the sample's conversation holds; REG's box comes from its question."""
    found: list[tuple[str, BoxXYXY]] = []
    for question, answer in zip(sample.turns[::2], sample.turns[1::2], strict=False):
        if sample.task in ANSWERED_WITH_BOXES:
            found += parse_answer(answer.text, sample.task, style)
        elif sample.task == "REG":
            found += [(answer.text, box) for box in parse_boxes_in(question.text, style)]
    return found


def draw_sample(sample: Sample, style: str) -> Image.Image:
    """The sample's picture with its boxes and labels, and the region of VISJ in yellow.

    Raises:
        DataError: the sample has no picture, or it does not decode.
    """
    if sample.image is None:
        raise DataError(f"{sample.key}: has no picture to draw on")
    try:
        picture = decode(sample.image)
    except ImageError as error:
        raise DataError(f"{sample.key}: its picture does not decode: {error}") from error
    draw = ImageDraw.Draw(picture)
    side_px = max(picture.size)
    line_px = max(1, side_px // 300)
    font = ImageFont.load_default(size=max(10, side_px // 45))
    boxes = labelled_boxes(sample, style)
    colours = {label: _COLOURS[place % len(_COLOURS)] for place, label in enumerate(dict.fromkeys(b[0] for b in boxes))}
    for label, (x1, y1, x2, y2) in boxes:
        x, y = picture.size
        box = _onto_pixels((x1 * x, y1 * y, x2 * x, y2 * y), picture)
        draw.rectangle(box, outline=colours[label], width=line_px)
        label = " ".join(label.split())
        if label:
            corner = (max(0.0, min(box[0], x - draw.textlength(label, font=font))), box[1])
            draw.rectangle(draw.textbbox(corner, label, font=font), fill=colours[label])
            draw.text(corner, label, fill="white", font=font)
    if sample.region_xyxy_px is not None:
        draw.rectangle(_onto_pixels(sample.region_xyxy_px, picture), outline=_REGION_COLOUR, width=2 * line_px)
    return picture


def _onto_pixels(box_xyxy_px: BoxXYXY, picture: Image.Image) -> BoxXYXY:
    """The box with its edges on pixels that there are: a line at x = width would not be seen."""
    x1, y1, x2, y2 = box_xyxy_px
    right, bottom = picture.width - 1, picture.height - 1
    return min(x1, right), min(y1, bottom), min(x2, right), min(y2, bottom)
