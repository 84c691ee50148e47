"""Pictures as training sees them: decoded, made square by a bilinear resize as in the reference, 8 bits a channel."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from griffon_shards import images
from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY, Sample

IMAGE_PX = 1022
"""Side of the picture that the vision tower sees."""

REGION_PX = 224
"""Side of the crop that the region tower sees."""

Pixels = NDArray[np.uint8]
"""Height, width, RGB."""


def decode(sample: Sample, where: str) -> Image.Image:
    """The sample's picture in RGB, in its stored orientation.

    Raises:
        DataError: it does not decode.
    """
    assert sample.image is not None, "only samples with a picture are decoded"
    try:
        return images.decode(sample.image)
    except images.ImageError as error:
        raise DataError(f"{where}: its picture does not decode: {error}") from error


def resized(picture: Image.Image, side_px: int) -> Pixels:
    """The whole picture, squeezed to a square of `side_px`; shape [side_px, side_px, 3]."""
    return np.asarray(picture.resize((side_px, side_px), Image.Resampling.BILINEAR))


def cropped(picture: Image.Image, region_xyxy_px: BoxXYXY) -> Image.Image:
    """A region of the picture, at least a pixel wide and high."""
    x1, y1, x2, y2 = region_xyxy_px
    left, top = min(int(x1), picture.width - 1), min(int(y1), picture.height - 1)
    right, bottom = max(left + 1, min(round(x2), picture.width)), max(top + 1, min(round(y2), picture.height))
    return picture.reduce(1, (left, top, right, bottom))  # `crop` warns where a region is very large
