"""Images: any mode, any size, regions at the border; the pixels that the reference's preparation would give."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY, Origin, Rendering, Sample, Turn
from griffon_train.data.images import cropped, decode, resized

WHERE = "set/DET/DET-000000.tar, sample DET-000000007"
WIDTH, HEIGHT = 90, 60


def gradient(channels: int) -> NDArray[np.uint8]:
    """Every channel another pattern, so that none can stand for another; shape [HEIGHT, WIDTH, channels]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([(x * (2 + i) + y * (5 - i) + 40 * i) % 256 for i in range(channels)], -1).astype(np.uint8)


def stored(picture: Image.Image, form: str = "PNG") -> Sample:
    """A sample that holds the image's bytes."""
    out = BytesIO()
    picture.save(out, form, **({"quality": 95} if form == "JPEG" else {}))
    return sample_of(out.getvalue())


def sample_of(image: bytes) -> Sample:
    return Sample(
        key="DET-000000007",
        image=image,
        image_format="PNG",
        width_px=WIDTH,
        height_px=HEIGHT,
        task="DET",
        renderings=(Rendering(turns=(Turn(role="human", text="Where?"),)),),
        origin=Origin(annotation="det.jsonl", record=7),
    )


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture)


def palette() -> Image.Image:
    picture = Image.fromarray(gradient(3)).quantize(64)
    picture.info["transparency"] = 3
    return picture


def palette_with_alpha() -> Image.Image:
    return Image.fromarray(gradient(4), "RGBA").quantize(32, Image.Quantize.FASTOCTREE)


COLOURS: dict[str, tuple[Callable[[], Image.Image], NDArray[np.uint8]]] = {
    "RGB": (lambda: Image.fromarray(gradient(3)), gradient(3)),
    "RGBA": (lambda: Image.fromarray(gradient(4), "RGBA"), gradient(4)[..., :3]),
    "grey": (lambda: Image.fromarray(gradient(1)[..., 0]), gradient(1).repeat(3, -1)),
    "grey with alpha": (lambda: Image.fromarray(gradient(2), "LA"), gradient(2)[..., :1].repeat(3, -1)),
    "16 bit grey": (
        lambda: Image.fromarray(gradient(1)[..., 0].astype(np.uint16) * 257),
        gradient(1).repeat(3, -1),
    ),
    "black and white": (
        lambda: Image.fromarray(np.where(gradient(1)[..., 0] > 99, 255, 0).astype(np.uint8)).convert("1"),
        np.where(gradient(1) > 99, 255, 0).astype(np.uint8).repeat(3, -1),
    ),
    "palette": (palette, pixels(palette().convert("RGB"))),
    "palette with alpha": (palette_with_alpha, pixels(palette_with_alpha().convert("RGBA"))[..., :3]),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(("make", "expected"), COLOURS.values(), ids=COLOURS)
def test_every_mode_becomes_its_colours_in_rgb(make: Callable[[], Image.Image], expected: NDArray[np.uint8]) -> None:
    """Transparency is left out and not blended: the colour below it is what the file says."""
    picture = decode(stored(make()), WHERE)
    assert picture.mode == "RGB"
    assert np.array_equal(pixels(picture), expected)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    """A camera's depth image of 12 bits is dark, and not white from 255 on."""
    ramp = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(pixels(decode(stored(Image.fromarray(ramp), form), WHERE))[..., 0], ramp // 256)


def test_16_bits_with_the_high_byte_first() -> None:
    ramp = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64)
    big = Image.frombytes("I;16B", (64, 64), ramp.astype(">u2").tobytes())
    assert np.array_equal(pixels(decode(stored(big, "TIFF"), WHERE))[..., 0], ramp // 256)


def test_cmyk_is_turned_into_rgb() -> None:
    cyan, ink = Image.new("CMYK", (20, 20), (255, 0, 0, 0)), Image.new("CMYK", (20, 20), (0, 0, 0, 255))
    assert np.abs(pixels(decode(stored(cyan, "JPEG"), WHERE)).astype(int) - (0, 255, 255)).max() <= 3
    assert np.abs(pixels(decode(stored(ink, "JPEG"), WHERE)).astype(int)).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_is_read(form: str) -> None:
    flat = Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 48))
    picture = decode(stored(flat, form), WHERE)
    assert picture.size == (WIDTH, HEIGHT)
    assert np.abs(pixels(picture).astype(int) - (200, 100, 48)).max() <= 4


def test_the_stored_orientation_counts() -> None:
    """Boxes are in stored pixels: an EXIF tag that asks viewers to turn the image is not followed."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    Image.fromarray(gradient(3)).save(out, "PNG", exif=exif)
    assert np.array_equal(pixels(decode(sample_of(out.getvalue()), WHERE)), gradient(3))


def test_an_image_of_one_pixel_fills_the_square() -> None:
    picture = decode(stored(Image.new("RGB", (1, 1), (9, 8, 7))), WHERE)
    assert np.array_equal(resized(picture, 32), np.full((32, 32, 3), (9, 8, 7)))
    assert cropped(picture, (0.0, 0.0, 1.0, 1.0)).size == (1, 1)


@pytest.mark.parametrize(("width_px", "height_px"), [(1, 400), (400, 1), (3000, 2)])
def test_long_and_thin_images_are_squeezed(width_px: int, height_px: int) -> None:
    picture = resized(Image.new("RGB", (width_px, height_px), (9, 8, 7)), 16)
    assert np.array_equal(picture, np.full((16, 16, 3), (9, 8, 7)))


@pytest.mark.parametrize("size_px", [(90, 60), (64, 64), (640, 480), (33, 200)])
def test_pixels_are_those_of_the_references_preparation(size_px: tuple[int, int]) -> None:
    """PIL's bilinear resize to a square, then CLIP's image processor; ours is normalised on the device."""
    x, y = np.meshgrid(np.arange(size_px[0]), np.arange(size_px[1]))
    picture = Image.fromarray(np.stack([x * 5 % 256, y * 3 % 256, (x * y) % 256], -1).astype(np.uint8))
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    square = picture.resize((64, 64), Image.Resampling.BILINEAR)
    expected_CHW = processor(square, return_tensors="np")["pixel_values"][0]
    ours = resized(decode(stored(picture), WHERE), 64)
    assert ours.dtype == np.uint8
    assert ours.shape == (64, 64, 3)
    normalised_HWC = (ours / 255 - np.array(processor.image_mean)) / np.array(processor.image_std)
    assert np.abs(normalised_HWC.transpose(2, 0, 1) - expected_CHW).max() <= 1 / 255


@pytest.mark.parametrize(
    ("region_xyxy_px", "box"),
    [
        ((10.0, 20.0, 30.0, 50.0), (10, 20, 30, 50)),
        ((0.0, 0.0, 90.0, 60.0), (0, 0, 90, 60)),
        ((10.6, 20.4, 30.4, 50.6), (10, 20, 30, 51)),
        ((10.4, 20.6, 30.6, 50.4), (10, 20, 31, 50)),
        ((-0.4, -0.9, 90.3, 60.7), (0, 0, 90, 60)),
        ((89.7, 59.7, 90.0, 60.0), (89, 59, 90, 60)),
        ((90.0, 60.0, 90.0, 60.0), (89, 59, 90, 60)),
        ((40.2, 30.2, 40.3, 30.3), (40, 30, 41, 31)),
        ((0.0, 0.0, 0.2, 0.2), (0, 0, 1, 1)),
    ],
)
def test_a_region_is_cut_out_within_the_image(region_xyxy_px: BoxXYXY, box: tuple[int, int, int, int]) -> None:
    actual = cropped(Image.fromarray(gradient(3)), region_xyxy_px)
    left, top, right, bottom = box
    assert np.array_equal(pixels(actual), gradient(3)[top:bottom, left:right])


BROKEN = {
    "no picture": b"this is no picture",
    "nothing": b"",
    "truncated": b"",
    "a damaged header": b"\x89PNG\r\n\x1a\n" + bytes(40),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_decode_is_named(what: str) -> None:
    whole = stored(Image.fromarray(gradient(3)), "JPEG").image
    assert whole is not None
    with pytest.raises(DataError, match="cannot be decoded") as refused:
        decode(sample_of(whole[:-400] if what == "truncated" else BROKEN[what]), WHERE)
    assert str(refused.value).startswith(WHERE)
