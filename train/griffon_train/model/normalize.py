"""Normalise pixels for CLIP, on the device: bytes are a quarter of the size of floats to copy there."""

import torch
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


def normalised(pixels_PHWC: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return images of bytes as CLIP takes them.

    Args:
        pixels_PHWC: uint8, shape [P, height, width, 3], on any device.
        dtype: of the result; the computation is in float32.

    Returns:
        Shape [P, 3, height, width], on the same device.
    """
    mean, deviation = (
        torch.tensor(values, device=pixels_PHWC.device) * 255 for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    return ((pixels_PHWC.float() - mean) / deviation).to(dtype).permute(0, 3, 1, 2).contiguous()
