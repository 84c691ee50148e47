"""Images for training: decoded to 8 bits a channel and resized to a square bilinearly, as in the reference."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from griffon_shards import images
from griffon_shards.support.errors import DataError
from griffon_shards.types import Sample

IMAGE_PX = 1022
"""Side of the vision tower's input."""

REGION_PX = 224
"""Side of the region tower's input."""

Pixels = NDArray[np.uint8]
"""Shape [height, width, 3], RGB."""


def decode(sample: Sample, where: str) -> Image.Image:
    """Decode a sample's image to RGB, in its stored orientation.

    Raises:
        DataError: the image cannot be decoded.
    """
    assert sample.image is not None, "the sample has no image"
    try:
        return images.decode(sample.image)
    except images.ImageError as error:
        raise DataError(f"{where}: its image cannot be decoded: {error}") from error


def resized(image: Image.Image, side_px: int) -> Pixels:
    """Resize an image to a square, ignoring its aspect ratio; shape [side_px, side_px, 3]."""
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR))


cropped = images.cropped
"""Crops the region of a sample, as `griffon-shards view` shows it."""
