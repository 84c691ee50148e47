"""The one decoder: what it takes, what it refuses in which words, and the pixels that everybody sees."""

import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from griffon_shards import Sample, verify_set
from griffon_shards.draw import draw_sample
from griffon_shards.images import (
    Header,
    ImageError,
    check_end,
    decode,
    decode_with_orientation,
    format_of,
    orientation,
    read_header,
)

SIDES_PX = (64, 48)


def ramp() -> NDArray[np.uint8]:
    return np.arange(64 * 48, dtype=np.uint32).astype(np.uint8).reshape(48, 64)


def encoded(image: Image.Image, coding: str = "PNG", **options: Any) -> bytes:  # noqa: ANN401
    out = BytesIO()
    image.save(out, coding, **options)
    return out.getvalue()


def refused(function: Callable[[], object]) -> str:
    with pytest.raises(ImageError) as caught:
        function()
    return str(caught.value)


def box(brand: bytes, *more: bytes) -> bytes:
    """The first box of an ISO media file."""
    return struct.pack(">I", 16 + 4 * len(more)) + b"ftyp" + brand + bytes(4) + b"".join(more) + bytes(99)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (bytes(999), "nothing but zero bytes"),
        (b"\n", "not an image, or one of an unsupported format"),
        (b"\x07" * 400, "not an image, or one of an unsupported format"),
        (box(b"heic", b"mif1", b"heic"), "HEIC, which is not supported; convert it"),
        (box(b"mif1", b"heic"), "HEIC, which is not supported; convert it"),
        (box(b"isom"), "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a" + bytes(9), "JPEG XL"),
        (b"<!DOCTYPE html><title>404</title>", "an HTML page, probably from a failed download"),
        (b"\r\n <HTML>Not found", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b'{"message": "rate limited"}', "JSON"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"\x1f\x8b\x08....", "a compressed file"),
        (b"%PDF-1.7", "a PDF"),
        (b"RIFF\0\0\0\0WAVE", "not an image"),
        (b"\xff\xd8\xff", "a damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
        (b"RIFF\0\0\0\0WEBP", "a damaged WEBP"),
        (b"GIF89a", "a damaged GIF"),
        (b"BM", "a damaged BMP"),
        (b"II*\0\x08\0\0\0", "a damaged TIFF"),
        (box(b"avif"), "a damaged AVIF"),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_is_not_an_image_is_named(data: bytes, words: str) -> None:
    message = refused(lambda: read_header(data))
    assert words in message
    assert "\n" not in message
    assert "0x" not in message  # an address of Pillow's
    assert refused(lambda: decode(data)) == refused(lambda: read_header(bytes(bytearray(data)))) == message


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_white_are_refused(mode: str) -> None:
    data = encoded(Image.new(mode, SIDES_PX, 700), "TIFF")
    for function in (read_header, decode):
        assert refused(lambda function=function: function(data)).startswith("32 bits per pixel")  # type: ignore[misc]


@pytest.mark.parametrize("turned", range(1, 9))
def test_a_tiff_is_seen_as_it_is_stored(turned: int) -> None:
    """Other formats are, too: Pillow turns only TIFF."""
    data = encoded(Image.fromarray(ramp()), "TIFF", tiffinfo={0x0112: turned})
    assert read_header(data, check_pixels=True) == Header(format="TIFF", width_px=64, height_px=48)
    assert np.array_equal(np.asarray(decode(data, "L")), ramp())
    assert orientation(data) == decode_with_orientation(data, "L", 1)[1] == turned


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_an_orientation_is_read_with_the_pixels(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, turned = decode_with_orientation(encoded(Image.fromarray(ramp()), form, exif=exif), "L", 48)
    assert (pixels.size, turned) == (SIDES_PX, 6)


def test_an_orientation_that_is_no_number_turns_nothing() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0"
    assert decode_with_orientation(encoded(Image.fromarray(ramp()), "JPEG", exif=exif), "L", 1)[1] == 1


def test_bigtiff_and_avif_are_read() -> None:
    image = Image.fromarray(ramp()).convert("RGB")
    big = encoded(image, "TIFF", big_tiff=True)
    assert read_header(big) == Header(format="TIFF", width_px=64, height_px=48)
    assert np.array_equal(np.asarray(decode(big)), np.asarray(image))
    avif = encoded(image, "AVIF", quality=100, subsampling="4:4:4")
    assert read_header(avif, check_pixels=True) == Header(format="AVIF", width_px=64, height_px=48)
    assert np.abs(np.asarray(decode(avif)).astype(int) - np.asarray(image)).max() <= 4


def with_texts(kind: str) -> tuple[bytes, Image.Image]:
    """A PNG with more text or profile than Pillow takes."""
    image, info = Image.fromarray(ramp()), PngImagePlugin.PngInfo()
    if kind == "compressed text":
        info.add_text("parameters", "a" * (2 << 20), zip=True)
    elif kind == "international text":
        info.add_itxt("XML:com.adobe.xmp", "a" * (2 << 20), zip=True)
    elif kind == "text behind the pixels":
        info.add(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20)), after_idat=True)
    elif kind == "many texts":
        for i in range(70):
            info.add_text(f"text {i}", "a" * (1 << 20), zip=True)
    return encoded(image, pnginfo=info, icc_profile=bytes(2 << 20) if kind == "profile" else None), image


TEXTS = ["compressed text", "international text", "text behind the pixels", "many texts", "profile"]


@pytest.mark.parametrize("kind", TEXTS)
def test_a_png_may_hold_long_texts_and_profiles(kind: str) -> None:
    data, image = with_texts(kind)
    with pytest.raises(ValueError, match=r"too large|Too much"):  # which is why this is tested
        PngImagePlugin.PngImageFile(BytesIO(data)).load()
    assert read_header(data, check_pixels=True) == Header(format="PNG", width_px=64, height_px=48)
    assert np.array_equal(np.asarray(decode(data, "L")), np.asarray(image))
    check_end(data)


@pytest.mark.parametrize("kind", TEXTS)
def test_a_wrong_bit_in_a_text_is_damage_as_elsewhere_in_a_png(kind: str) -> None:
    data, _ = with_texts(kind)
    text = max(data.find(b"TXt"), data.find(b"iCCP"))
    wrong = bytearray(data)
    wrong[text + 40] ^= 1
    assert refused(lambda: read_header(bytes(wrong), check_pixels=True)).startswith("a damaged PNG")


@pytest.mark.filterwarnings("error")
def test_large_images_are_read_without_a_warning(
    tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path]
) -> None:
    data = encoded(Image.new("1", (9800, 9800)))
    with pytest.warns(Image.DecompressionBombWarning):  # what a user would see of Pillow
        Image.open(BytesIO(data))
    large = replace(make_sample("LAZY-000000000", "A large one."), image=data, width_px=9800, height_px=9800)
    assert list(verify_set(write_set(tmp_path / "set", [large]), deep=True)) == []


@pytest.mark.filterwarnings("error")
def test_metadata_that_pillow_warns_of_are_nobodys_business_on_the_command_line(
    tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path], shards_cli: Callable[..., Any]
) -> None:
    picture = encoded(Image.fromarray(ramp()), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        decode(picture)
    sample = replace(make_sample("LAZY-000000000", "A picture.", size_px=SIDES_PX), image=picture)
    result = shards_cli("verify", "--deep", write_set(tmp_path / "set", [sample]))
    assert (result.returncode, result.stderr) == (0, "")


def test_larger_images_are_refused_with_their_size() -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    data += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + struct.pack(">I", 9) + b"IDAT" + bytes(13)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(lambda: read_header(data)) == (
            "20000x20000 pixels, at most 178,956,970 are supported; make it smaller"
        )


@pytest.mark.parametrize("coding", ["PNG", "TIFF"])
def test_sixteen_bits_are_drawn_on_as_they_look(make_sample: Callable[..., Sample], coding: str) -> None:
    deep = encoded(Image.fromarray(ramp().astype(np.uint16) * 257), coding)
    assert format_of(deep) == coding
    drawn = draw_sample(replace(make_sample("DET-000000000", "None", size_px=SIDES_PX), image=deep), "text")
    assert np.array_equal(np.asarray(drawn)[..., 0], ramp())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("stored", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I;16B"])
def test_every_mode_becomes_the_one_asked_for(stored: str, mode: str) -> None:
    data = encoded(Image.new(stored, SIDES_PX), "TIFF")
    picture = decode(data, mode)
    assert (picture.mode, picture.size) == (mode, SIDES_PX)
