"""Pictures for transformers as training sees them, from whatever they come in."""

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
    """Pictures as training sees them: squeezed to a square, bilinear, normalised as for CLIP.

    Attributes:
        image_px: side of the square that the vision tower sees.
        region_px: side of the square that the region tower sees.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' way

    def __init__(self, image_px: int = IMAGE_PX, region_px: int = REGION_PX, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        self.image_px, self.region_px = image_px, region_px

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:  # noqa: ANN401
        """Pictures as the model's `pixel_values`, [P, 3, image_px, image_px].

        Args:
            images: a picture or a list of them, as `opened` takes them; lists of lists count as one.
            return_tensors: `pt` or None, which is the same.
        """
        found = [opened(each) for each in _flat(images)]
        return BatchFeature({"pixel_values": pixels_of(found, self.image_px)}, tensor_type=return_tensors)


def opened(image: Any) -> Image.Image:  # noqa: ANN401
    """A picture in RGB as training decodes it, in its stored orientation.

    Args:
        image: of PIL; a file's path or bytes, or those in base64; a URL, of which transformers turns the picture
            upright; or an array of [height, width, 3] or [3, height, width].

    Raises:
        DataError: it does not decode, or there is no such file.
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
    if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
        buffer = BytesIO()
        image.save(buffer, "PNG")
        return stored.decode(buffer.getvalue())
    picture: Image.Image = image.convert("RGB")
    return picture


def pixels_of(pictures: Sequence[Image.Image], side_px: int) -> torch.Tensor:
    """Squares of `side_px` as a tower takes them; shape [P, 3, side_px, side_px]."""
    squares = np.stack([resized(picture, side_px) for picture in pictures])
    return normalised(torch.from_numpy(squares), torch.float32)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # text in base64 is too long for a name
        return False


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.rpartition(",")[2].split()), validate=True)
    except binascii.Error:
        raise DataError(f"{text[:200]!r}: no such file, and neither a URL nor base64") from None


def _flat(images: Any) -> list[Any]:  # noqa: ANN401
    return [each for one in images for each in _flat(one)] if isinstance(images, list | tuple) else [images]
