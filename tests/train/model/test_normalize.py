"""Bytes to what CLIP takes."""

import numpy as np
import torch
from transformers import CLIPImageProcessorPil

from griffon_train.model.normalize import normalised


def test_pixels_are_those_of_the_clip_processor() -> None:
    pixels = torch.randint(0, 256, (2, 14, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    expected = processor.preprocess([np.asarray(pixel) for pixel in pixels], return_tensors="pt")["pixel_values"]
    assert torch.allclose(normalised(pixels, torch.float32), expected, atol=1e-5)
    assert normalised(pixels, torch.bfloat16).dtype == torch.bfloat16
