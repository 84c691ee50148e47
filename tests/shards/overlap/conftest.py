"""Images with enough structure to be told apart, as files."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """A JPEG of a blurred pattern: `jpeg(seed, quality=, side_px=)`."""

    def draw(seed: int, *, quality: int = 95, side_px: int = 320) -> bytes:
        blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(blocks).resize((640, 480), Image.Resampling.BICUBIC)
        out = BytesIO()
        image.resize((side_px, side_px * 3 // 4), Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
        return out.getvalue()

    return draw


@pytest.fixture
def folders(tmp_path: Path, jpeg: Callable[..., bytes]) -> tuple[Path, Path]:
    """A folder of training images and one of evaluation images: of ten, one the same by each key, one by all."""
    train, evaluation = tmp_path / "训练 train", tmp_path / "val2017"
    (train / "deep/er").mkdir(parents=True)
    evaluation.mkdir()
    for number in range(10):
        (evaluation / f"{number:012d}.jpg").write_bytes(jpeg(number))
    (train / "deep/er/renamed.JPG").write_bytes(jpeg(0))
    (train / "COCO_val2014_000000000001.jpg").write_bytes(jpeg(101))  # other bytes under the name of image 1
    (train / "deep/small.jpg").write_bytes(jpeg(2, quality=70, side_px=160))
    (train / "000000000003.jpg").write_bytes(jpeg(3))
    for number in range(4):
        (train / f"other {number}.jpg").write_bytes(jpeg(200 + number))
    (train / "notes.txt").write_text("no image")
    return train, evaluation
