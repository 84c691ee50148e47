"""Draw boxes and labels onto an image."""

from collections.abc import Mapping, Sequence
from math import ceil

from PIL import Image, ImageDraw

from griffon_shards.grammar import ANSWERED_WITH_BOXES, parse_answer, parse_boxes_in
from griffon_shards.images import ImageError, decode
from griffon_shards.label_placement import place_labels
from griffon_shards.label_text import fit_label
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
_LEAST_FONT_PX = 11


def labelled_boxes(sample: Sample, style: str) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (as fractions) in the sample's conversation. The box of a REG sample is in its question."""
    labelled: list[tuple[str, BoxXYXY]] = []
    for question, answer in zip(sample.turns[::2], sample.turns[1::2], strict=False):
        if sample.task in ANSWERED_WITH_BOXES:
            labelled += parse_answer(answer.text, sample.task, style)
        elif sample.task == "REG":
            labelled += [(answer.text, box) for box in parse_boxes_in(question.text, style)]
    return labelled


def draw_sample(sample: Sample, style: str, longest_px: int | None = None) -> Image.Image:
    """The sample's image with its boxes and labels, and the region of a VISJ sample in yellow.

    Args:
        sample: the sample.
        style: how its answers write boxes, one of `BOX_STYLES`.
        longest_px: shrink the image first, so that its longer side is at most this.

    Raises:
        DataError: the sample has no image, or its image does not decode.
    """
    if sample.image is None:
        raise DataError(f"{sample.key}: has no image to draw on")
    try:
        image = decode(sample.image)
    except ImageError as error:
        raise DataError(f"{sample.key}: its image does not decode: {error}") from error
    stored_width_px, stored_height_px = image.size
    if longest_px is not None:
        image.thumbnail((longest_px, longest_px), Image.Resampling.BICUBIC)
    width_px, height_px = image.size
    boxes = [
        (label, (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px))
        for label, (x1, y1, x2, y2) in labelled_boxes(sample, style)
    ]
    region = sample.region_xyxy_px
    if region is not None:
        x_scale, y_scale = width_px / stored_width_px, height_px / stored_height_px
        region = (region[0] * x_scale, region[1] * y_scale, region[2] * x_scale, region[3] * y_scale)
    draw_boxes(image, boxes, region)
    return image


def draw_boxes(image: Image.Image, boxes: Sequence[tuple[str, BoxXYXY]], region_xyxy_px: BoxXYXY | None = None) -> None:
    """Draw labelled boxes (in pixels) onto an image, in one colour per label, and a region in yellow.

    Labels stand beside their boxes, clear of each other where there is room. Long ones are shortened.
    """
    draw = ImageDraw.Draw(image)
    side_px = max(image.size)
    line_px = max(1, side_px // 300)
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(dict.fromkeys(b[0] for b in boxes))}
    for label, box_xyxy_px in boxes:
        draw.rectangle(_onto_pixels(box_xyxy_px, image), outline=colours[label], width=line_px)
    if region_xyxy_px is not None:
        draw.rectangle(_onto_pixels(region_xyxy_px, image), outline=_REGION_COLOUR, width=2 * line_px)
    _draw_labels(
        draw, [(label, _onto_pixels(box, image)) for label, box in boxes if label.strip()], colours, image.size
    )


def _draw_labels(
    draw: ImageDraw.ImageDraw,
    boxes: Sequence[tuple[str, BoxXYXY]],
    colours: Mapping[str, str],
    image_size_px: tuple[int, int],
) -> None:
    font_px = max(_LEAST_FONT_PX, max(image_size_px) // 60)
    limit_px = max(image_size_px[0] // 3, 8 * font_px)
    texts = [fit_label(label, font_px, min(limit_px, image_size_px[0] - 2)) for label, _ in boxes]
    ascent_px = font_px + font_px // 5  # of letters, with a pixel above and below
    sizes_px = [(ceil(font.getlength(text)) + 2, ascent_px) for text, font in texts]
    corners = place_labels(sizes_px, [box for _, box in boxes], image_size_px)
    for (label, _), (text, font), (x, y), (width_px, height_px) in zip(boxes, texts, corners, sizes_px, strict=True):
        draw.rectangle((x, y, x + width_px - 1, y + height_px - 1), fill=colours[label])
        draw.text((x + 1, y + height_px // 2), text, fill="white", font=font, anchor="lm")


def _onto_pixels(box_xyxy_px: BoxXYXY, image: Image.Image) -> BoxXYXY:
    """The box with its edges inside the image: a line at x = width would not be visible.

    Pillow refuses a box whose corners are swapped, which a model may answer.
    """
    (x1, x2), (y1, y2) = sorted(box_xyxy_px[::2]), sorted(box_xyxy_px[1::2])
    right, bottom = image.width - 1, image.height - 1
    return min(x1, right), min(y1, bottom), min(x2, right), min(y2, bottom)
