"""Images: which of them are taken, and which are refused in which words."""

import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from griffon_prep.images import CHECKS, StoredImage, bake_image, check_image
from griffon_prep.records import Rejected

SIDES_PX = (129, 97)
SAVED_AS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90},
    "progressive JPEG": {"progressive": True, "quality": 90},
    "JPEG with restarts": {"restart_marker_blocks": 4},
    "CMYK JPEG": {},
    "grey JPEG": {},
    "PNG": {},
    "palette PNG": {},
    "16-bit PNG": {},
    "RGBA PNG": {},
    "grey PNG": {},
    "WebP": {"quality": 90},
    "lossless WebP": {"lossless": True},
    "RGBA WebP": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {},
}
MODES = {"CMYK": "CMYK", "grey": "L", "palette": "P", "16-bit": "I;16", "RGBA": "RGBA"}


def textured() -> Image.Image:
    generator = np.random.default_rng(0)
    smooth = np.kron(generator.integers(0, 256, (13, 17, 3)), np.ones((8, 8, 1), int))[: SIDES_PX[1], : SIDES_PX[0]]
    noisy = np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255)
    return Image.fromarray(noisy.astype(np.uint8))


def encoded(image: Image.Image, coding: str, **options: Any) -> bytes:  # noqa: ANN401
    out = BytesIO()
    image.save(out, coding, **options)
    return out.getvalue()


def picture(kind: str) -> bytes:
    mode = next((mode for word, mode in MODES.items() if word in kind), "RGB")
    image = textured()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert(mode)
    return encoded(image, kind.split()[0 if kind.endswith("restarts") else -1], **SAVED_AS[kind])


def coding_of(kind: str) -> str:
    return next(coding for coding in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if coding in kind.upper())


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA"))


def reason(function: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        function()
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("kind", SAVED_AS)
def test_a_complete_image_is_taken_as_it_is(kind: str, check: str) -> None:
    data = picture(kind)
    for stated in (SIDES_PX, (0, 0)):
        assert check_image(data, check, stated, "a.jpg") == StoredImage(
            data=data, format=coding_of(kind), width_px=SIDES_PX[0], height_px=SIDES_PX[1]
        )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", SAVED_AS)
def test_a_truncated_image_is_refused_unless_all_pixels_are_there(kind: str) -> None:
    data = picture(kind)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    sizes = {len(data) * percent // 100 for percent in range(0, 100, 5)} | set(range(len(data) - 40, len(data)))
    accepted = []
    for size in sorted(sizes):
        try:
            check_image(data[:size], "decode", SIDES_PX, "a.jpg")
        except Rejected as rejected:
            assert rejected.reason == "picture_unreadable"
            assert rejected.detail.startswith("a.jpg: ")
        else:
            accepted.append(len(data) - size)
            assert np.array_equal(pixels(data[:size]), pixels(data))
    # What may be missing: the checksum of a PNG's empty last chunk, what closes a GIF, a BMP's last padding.
    assert accepted == {"PNG": [4, 3, 2, 1], "GIF": [2, 1], "BMP": [1]}.get(coding_of(kind), [])


@pytest.mark.parametrize("kind", ["PNG", "palette PNG", "16-bit PNG", "RGBA PNG"])
def test_a_png_with_one_wrong_bit_is_refused(kind: str) -> None:
    data = bytearray(picture(kind))
    for offset in range(16, len(data) - 12, 97):
        data[offset] ^= 4
        assert reason(lambda: check_image(bytes(data), "decode", (0, 0), "a.jpg"))[0] == "picture_unreadable"
        data[offset] ^= 4


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"<html>not found</html>", "an HTML page"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC, which is not supported"),
        (bytes(999), "nothing but zero bytes"),
        (b"some text", "not an image, or one of an unsupported format"),
    ],
)
def test_what_is_not_an_image_is_named(data: bytes, words: str, check: str) -> None:
    why, what = reason(lambda: check_image(data, check, (1, 1), "b.png"))
    assert why == "picture_unreadable"
    assert what.startswith(f"b.png: {words}")


def with_preview() -> bytes:
    """A JPEG that holds a complete small JPEG in front of its own pixels, as cameras write them."""
    data, preview = picture("JPEG"), picture("grey JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(preview) + 2) + preview + data[2:]


ENDED: dict[str, Callable[[], bytes]] = {
    **{kind: partial(picture, kind) for kind in SAVED_AS if coding_of(kind) in ("JPEG", "PNG", "WEBP")},
    "JPEG with a preview": with_preview,
}


@pytest.mark.parametrize("kind", ENDED)
def test_the_header_check_finds_a_missing_end(kind: str) -> None:
    """Decoding finds it too, but costs more; bytes after the end do not matter."""
    data = ENDED[kind]()
    for behind in (b"", b"\0", b"\r\n" * 99, b"SEFT trailer" * 9):
        assert check_image(data + behind, "header", SIDES_PX, "a.jpg").data == data + behind
    for size in (len(data) * percent // 100 for percent in (60, 80, 90, 95, 99)):
        why, what = reason(partial(check_image, data[:size], "header", SIDES_PX, "a.jpg"))
        assert why == "picture_unreadable"
        assert re.match(r"a\.jpg: a truncated (JPEG|PNG|WebP): |a\.jpg: a damaged WEBP", what)
    assert reason(partial(check_image, data[:-5], "header", SIDES_PX, "a.jpg"))[0] == "picture_unreadable"


def test_a_png_without_image_data_is_refused() -> None:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    assert reason(lambda: check_image(data, "decode", (9, 9), "a.png"))[0] == "picture_unreadable"


@pytest.mark.parametrize("check", ["decode", "header"])
@pytest.mark.parametrize("stated", [(97, 129), (129, 98), (128, 97), (129, 0), (1, 1)])
def test_another_size_than_the_record_states(check: str, stated: tuple[int, int]) -> None:
    swapped = ": width and height are swapped" if stated == (97, 129) else ""
    assert reason(lambda: check_image(picture("PNG"), check, stated, "a.jpg")) == (
        "size_mismatch",
        "a.jpg: the image is 129x97, the record says {}x{}".format(*stated) + swapped,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("coding", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_swapped_sides_are_reported_with_their_cause(coding: str, orientation: int) -> None:
    """Such annotations were drawn on the image as a viewer turns it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(textured(), coding, exif=exif)
    why, what = reason(lambda: check_image(data, "header", SIDES_PX[::-1], "a.jpg"))
    assert why == "size_mismatch"
    assert what.startswith("a.jpg: the image is 129x97, the record says 97x129: ")
    assert (f"EXIF orientation {orientation} shows it" in what) == (orientation >= 5)
    assert ("width and height are swapped" in what) == (orientation < 5)


def test_without_a_check_the_records_size_is_trusted() -> None:
    data = picture("PNG")[:50]
    assert check_image(data, "none", (7, 8), "a.jpg") == StoredImage(data=data, format="PNG", width_px=7, height_px=8)
    for stated in ((7, 8), (0, 0)):  # no format at all would mean: no image
        assert reason(partial(check_image, b"anything", "none", stated, "a"))[0] == "picture_unreadable"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_the_stored_one(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for coding in ("JPEG", "PNG", "WEBP"):
        data = encoded(textured(), coding, exif=exif)
        actual = check_image(data, "decode", SIDES_PX, "a.jpg")
        assert (actual.width_px, actual.height_px, actual.data) == (*SIDES_PX, data)


def test_an_image_of_several_frames_is_its_first() -> None:
    data = encoded(textured(), "MPO", save_all=True, append_images=[textured()])
    assert check_image(data, "decode", SIDES_PX, "a.jpg").format == "JPEG"


@pytest.mark.parametrize("kind", SAVED_AS)
def test_shrinking(kind: str) -> None:
    before = check_image(picture(kind), "decode", SIDES_PX, "a.jpg")
    assert bake_image(before, 129, "a.jpg") is before
    after = bake_image(before, 64, "a.jpg")
    assert (after.format, after.width_px, after.height_px) == ("JPEG", 64, 48)
    assert check_image(after.data, "decode", (64, 48), "a.jpg") == after


def test_shrinking_keeps_the_appearance_and_at_least_a_pixel() -> None:
    wide = Image.new("RGB", (400, 2), "#c04020")
    after = bake_image(check_image(encoded(wide, "PNG"), "decode", (400, 2), "a.png"), 100, "a.png")
    assert (after.width_px, after.height_px) == (100, 1)
    assert np.abs(pixels(after.data)[..., :3].astype(int) - (0xC0, 0x40, 0x20)).max() < 8


@pytest.mark.parametrize("coding", ["PNG", "TIFF"])
def test_shrinking_keeps_sixteen_bits_of_grey(coding: str) -> None:
    """Training and `show --draw` see the same greys, not white."""
    ramp = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64)
    before = check_image(encoded(Image.fromarray(ramp), coding), "decode", (64, 64), "a.png")
    after = pixels(bake_image(before, 32, "a.png").data)[..., 0].astype(int)
    assert np.abs(after - (ramp >> 8).reshape(32, 2, 32, 2).mean(axis=(1, 3))).max() < 8


def test_shrinking_a_damaged_image() -> None:
    before = check_image(picture("JPEG")[:2000], "none", SIDES_PX, "a.jpg")
    assert reason(lambda: bake_image(before, 64, "a.jpg"))[0] == "picture_unreadable"
