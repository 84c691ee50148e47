"""The quick look at a JPEG's header says what Pillow says, or nothing."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from griffon_prep.jpeg_header import jpeg_size_px


def jpeg(mode: str = "RGB", size: tuple[int, int] = (333, 21), **options: Any) -> bytes:  # noqa: ANN401
    out = BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"progressive": True},
        {"optimize": True, "quality": 30},
        {"restart_marker_rows": 1},
        {"comment": b"\xff\xc0 looks like a frame"},
        {"exif": b"Exif\x00\x00" + b"\xff\xda" * 40},
        {"icc_profile": b"\xff\xc0" * 40_000},
        {"size": (65500, 3)},
        {"size": (1, 1)},
    ],
)
def test_ordinary_jpegs(options: Mapping[str, Any]) -> None:
    data = jpeg(**options)
    with Image.open(BytesIO(data)) as image:
        assert jpeg_size_px(data) == image.size


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_pictures_are_none(format: str) -> None:
    out = BytesIO()
    Image.new("RGB", (30, 20)).save(out, format)
    assert jpeg_size_px(out.getvalue()) is None


def test_a_header_that_is_cut_or_wrong_is_none() -> None:
    """Wherever it is cut before the scan; and with any byte of its frame header changed, never another size unseen."""
    data = jpeg()
    scan = data.index(b"\xff\xda")
    assert all(jpeg_size_px(data[:end]) is None for end in range(scan))
    frame = data.index(b"\xff\xc0")
    for place in (2, 3, 4, 9):  # length, length, precision, components
        wrong = bytearray(data)
        wrong[frame + place] ^= 0x11
        assert jpeg_size_px(bytes(wrong)) is None
    empty = bytearray(data)
    empty[frame + 5 : frame + 9] = bytes(4)
    assert jpeg_size_px(bytes(empty)) is None
    assert jpeg_size_px(b"\xff\xd8\xff") is None
    assert jpeg_size_px(b"") is None
