"""The image processor for transformers: the same pixels as in training, from any kind of image."""

import base64
import binascii
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_transforms import to_pil_image
from transformers.image_utils import load_image

from griffon_shards import images as stored
from griffon_shards.support.errors import DataError
from griffon_train.data.images import IMAGE_PX, REGION_PX, resized
from griffon_train.model.normalize import normalised


class GriffonImageProcessor(BaseImageProcessor):
    """Prepares images as training does: resized to a square without regard to aspect, bilinear, normalised for CLIP.

    Attributes:
        image_px: side of the square that the vision tower sees.
        region_px: side of the square that the region tower sees.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' way

    def __init__(self, image_px: int = IMAGE_PX, region_px: int = REGION_PX, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.image_px, self.region_px = image_px, region_px

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:  # noqa: ANN401
        """Return images as the model's `pixel_values`, [P, 3, image_px, image_px].

        Args:
            images: an image or a list of images, of any type that `opened` takes; nested lists are flattened.
            return_tensors: `pt` or None; both give tensors.
        """
        decoded = [opened(image) for image in _flat(images)]
        return BatchFeature({"pixel_values": pixels_of(decoded, self.image_px)}, tensor_type=return_tensors)


def opened(image: Any) -> Image.Image:  # noqa: ANN401
    """Return an image in RGB, decoded as in training, in its stored orientation.

    Args:
        image: a PIL image; a path; the bytes of a file, plain or in base64; a URL, whose image transformers turns
            upright; or an array of shape [height, width, 3] or [3, height, width].

    Raises:
        DataError: it does not decode, or the file does not exist.
    """
    if isinstance(image, bytes):
        return stored.decode(image)
    if isinstance(image, Path) or (isinstance(image, str) and _is_file(image)):
        return stored.decode(Path(image).read_bytes())
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        fetched: Image.Image = load_image(image)
        return fetched
    if isinstance(image, str):
        return stored.decode(_from_base64(image))
    if not isinstance(image, Image.Image):
        image = to_pil_image(image)
    if image.mode.startswith("I;16"):  # Pillow would clip values above 255
        buffer = BytesIO()
        image.save(buffer, "PNG")
        return stored.decode(buffer.getvalue())
    converted: Image.Image = image.convert("RGB")
    return converted


def pixels_of(images: Sequence[Image.Image], side_px: int) -> torch.Tensor:
    """Return images resized to squares and normalised for a tower; [P, 3, side_px, side_px]."""
    squares = np.stack([resized(image, side_px) for image in images])
    return normalised(torch.from_numpy(squares), torch.float32)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # base64 text is too long for a file name
        return False


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.rpartition(",")[2].split()), validate=True)
    except binascii.Error:
        raise DataError(f"{text[:200]!r}: no such file, and neither a URL nor base64") from None


def _flat(images: Any) -> list[Any]:  # noqa: ANN401
    return [image for nested in images for image in _flat(nested)] if isinstance(images, list | tuple) else [images]
