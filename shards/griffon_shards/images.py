"""The one image decoder: for checks, resizing, streams, drawings, `verify` and training.

Each format is opened with Pillow's reader for it. `Image.open` would try other readers too, and warn about sizes that
are usual here. Images are decoded as stored: an orientation in EXIF or TIFF is not applied.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY

MAX_PIXELS = 178_956_970
"""Larger images are refused. This is Pillow's own limit: half a gigabyte of RGB."""

_READERS: dict[str, type[ImageFile]] = {
    "JPEG": JpegImageFile,  # of several images in one file (MPO) it reads the first, as all readers here do
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
}
_MAGIC = tuple(
    (re.compile(magic, re.DOTALL), what)
    for magic, what in (
        (rb"\xff\xd8", "JPEG"),
        (rb"\x89PNG", "PNG"),
        (rb"RIFF....WEBP", "WEBP"),
        (rb"BM", "BMP"),
        (rb"GIF8", "GIF"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF"),
        (rb"....ftyp(avi[fs]|(mif1|msf1).{4}(.{4}){0,8}avi[fs])", "AVIF"),
    )
)
_STRANGERS = tuple(
    (re.compile(magic, re.DOTALL), what)
    for magic, what in (
        (rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", "HEIC, which is not supported; convert it to JPEG or PNG"),
        (rb"....ftyp", "a video; extract a frame of it"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000, which is not supported; convert it to JPEG or PNG"),
        (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL, which is not supported; convert it to JPEG or PNG"),
        (rb"8BPS", "a Photoshop file, which is not supported; convert it to JPEG or PNG"),
        (rb"%PDF", "a PDF; convert its pages to JPEG or PNG"),
        (
            rb"(?i:\s*<(!doctype\s+html|html|head|body))",
            "an HTML page, probably from a failed download; download it again",
        ),
        (rb"(?i:(\xef\xbb\xbf)?\s*<(\?xml|svg|error))", "SVG or other XML; convert it, or download the image again"),
        (rb"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
        (rb"\s*[\[{]\s*[\"\]}]", "JSON, probably from a failed download; download the image again"),
        (rb"PK\x03\x04", "a zip archive; unpack it"),
        (rb"\x1f\x8b|\x28\xb5\x2f\xfd|BZh|7z\xbc\xaf", "a compressed file; unpack it"),
    )
)
_HEAD_BYTES = 256
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_ORIENTATION = 0x0112  # in TIFF and in EXIF, which is a TIFF
SHOWING = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What viewers do to the stored pixels, by EXIF orientation."""
# The inverse, of what Pillow's TIFF reader does to an image for its orientation.
_UNDOING = {**SHOWING, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
SIDEWAYS = (5, 6, 7, 8)
"""Orientations that swap width and height."""

# Everything that Pillow's decoders were seen to raise for damaged bytes. These errors share no base class.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    AttributeError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageError(DataError):
    """The bytes are not an image, or a damaged or unsupported one. The message says which, without a file name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """An image's format (Pillow's name for it) and its stored size."""

    format: str
    width_px: int
    height_px: int


def format_of(data: bytes) -> str:
    """An image's format, by its first bytes.

    Raises:
        ImageError: it is not one of the supported formats.
    """
    head = data[:_HEAD_BYTES]
    form = next((form for magic, form in _MAGIC if magic.match(head)), None)
    if form is not None:
        return form
    if not data:
        raise ImageError("an empty file")
    if not head.strip(b"\0") and not data.strip(b"\0"):
        raise ImageError("nothing but zero bytes, probably from a failed copy or download; get it again")
    what = next((what for magic, what in _STRANGERS if magic.match(head)), None)
    raise ImageError(what or "not an image, or one of an unsupported format")


def read_header(data: bytes, *, check_pixels: bool = False) -> Header:
    """Format and stored size of an image.

    Args:
        data: the file's bytes.
        check_pixels: also check whether it is truncated: JPEG by entropy-decoding at an eighth of the size, PNG by its
            chunk checksums, the other formats by decoding.

    Raises:
        ImageError: it is not a supported image, or is damaged.
    """
    with _opened(data) as image:
        form = str(image.format)
        width_px, height_px = image.size
        if form == "TIFF" and _tiff_orientation(image) in SIDEWAYS:
            width_px, height_px = height_px, width_px
        if check_pixels and form == "PNG":
            image.verify()
        elif check_pixels:
            if form == "JPEG":
                image.draft(None, (max(1, width_px // 8), max(1, height_px // 8)))
            image.load()
    return Header(format=form, width_px=width_px, height_px=height_px)


def check_end(data: bytes) -> None:
    """Check for the end of a JPEG, PNG or WebP, without decoding it.

    Raises:
        ImageError: its end is missing. (Decoders refuse most JPEGs that lack only the end mark, but not all.)
    """
    form = format_of(data)
    if form == "JPEG" and data.rfind(b"\xff\xd9", _jpeg_scan_start(data)) < 0:
        raise ImageError("a truncated JPEG: its end mark is missing")
    if form == "PNG" and not any(kind == b"IEND" for kind, _, _ in _png_chunks(data)):
        raise ImageError("a truncated PNG: its last chunk is missing")
    if form == "WEBP" and len(data) < (size := 8 + int.from_bytes(data[4:8], "little")):
        raise ImageError(f"a truncated WebP: it has {len(data):,} of {size:,} bytes")


def decode(data: bytes, mode: str = "RGB", at_least_px: int | None = None) -> Image.Image:
    """An image's pixels as stored, 8 bits per channel.

    16-bit greys are scaled (`>> 8`). Fully transparent pixels keep the colours in the file.

    Args:
        data: the file's bytes.
        mode: `RGB`, `RGBA` or `L`.
        at_least_px: a JPEG may be decoded at a half, a quarter or an eighth of its size, if no side becomes shorter
            than this. Other formats are decoded as they are.

    Raises:
        ImageError: it is not a supported image, or is damaged.
    """
    with _opened(data) as image:
        return _decoded(image, mode, at_least_px)


def decode_with_orientation(data: bytes, mode: str, at_least_px: int) -> tuple[Image.Image, int]:
    """`decode`, and the orientation of the image as `orientation` returns it; 1 if only its EXIF is damaged."""
    with _opened(data) as image:
        of_tiff = _tiff_orientation(image)  # Pillow's reader forgets it when it decodes
        pixels = _decoded(image, mode, at_least_px)
        try:
            return pixels, of_tiff if image.format == "TIFF" else _orientation_of(image)
        except _DECODE_ERRORS:  # viewers show the pixels as they are
            return pixels, 1


def decode_small(data: bytes, side_px: int, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`decode` to RGB, made smaller so that no side is longer than `side_px`. A JPEG is decoded at a reduced size.

    Args:
        data: the file's bytes.
        side_px: longest side of the result.
        max_pixels: the most pixels that are decoded.

    Raises:
        ImageError: it is not a supported image, is damaged, or has too many pixels.
    """
    with _opened(data) as image:
        image.draft("RGB", (side_px, side_px))
        width_px, height_px = image.size
        if width_px * height_px > max_pixels:
            raise ImageError(f"{width_px}x{height_px} pixels, at most {max_pixels:,} are shown in a small image")
        pixels = _as_stored(image, "RGB")
    pixels.thumbnail((side_px, side_px))
    return pixels


def cropped(image: Image.Image, region_xyxy_px: BoxXYXY) -> Image.Image:
    """Crop a region of an image, at least one pixel wide and high."""
    x1, y1, x2, y2 = region_xyxy_px
    left, top = min(int(x1), image.width - 1), min(int(y1), image.height - 1)
    right, bottom = max(left + 1, min(round(x2), image.width)), max(top + 1, min(round(y2), image.height))
    return image.reduce(1, (left, top, right, bottom))  # `crop` warns about very large regions


def _decoded(image: ImageFile, mode: str, at_least_px: int | None) -> Image.Image:
    if at_least_px is not None and image.format == "JPEG":
        image.draft(None, (at_least_px, at_least_px))
    return _as_stored(image, mode)


def _as_stored(image: ImageFile, mode: str) -> Image.Image:
    """The pixels of an open image, as `decode` has them."""
    orientation = _tiff_orientation(image)
    pixels: Image.Image = image
    if image.mode.startswith("I;16"):  # Pillow would clip values above 255
        pixels = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        pixels = image.convert("RGBA")  # the same colours, without Pillow's warning
    elif image.mode == "LAB":
        pixels = image.convert("RGB")  # the only mode that Pillow converts it to
    pixels = pixels.convert(mode)
    return pixels.transpose(_UNDOING[orientation]) if orientation in _UNDOING else pixels


def orientation(data: bytes) -> int:
    """The orientation in which viewers should show an image: 1 (as stored) to 8, as in EXIF.

    Raises:
        ImageError: it is not a supported image, or is damaged.
    """
    with _opened(data) as image:
        return _orientation_of(image)


def _orientation_of(image: ImageFile) -> int:
    return int(_tiff_orientation(image) if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1))


@contextmanager
def _opened(data: bytes) -> Iterator[ImageFile]:
    """Open an image and read its header; decoding errors within the context become `ImageError`."""
    form = format_of(data)
    try:
        with _READERS[form](BytesIO(_without_texts(data) if form == "PNG" else data)) as image:
            _check_kind(image)
            yield image
    except ImageError:
        raise
    except _DECODE_ERRORS as error:
        raise ImageError(f"a damaged {form} ({str(error) or type(error).__name__})") from error


def _check_kind(image: ImageFile) -> None:
    width_px, height_px = image.size
    if width_px * height_px > MAX_PIXELS:
        raise ImageError(f"{width_px}x{height_px} pixels, at most {MAX_PIXELS:,} are supported; make it smaller")
    if image.mode in ("I", "F"):  # no value is defined as white
        raise ImageError("32 bits per pixel, for which white is not defined; convert it to 8 or 16 bits")


def _tiff_orientation(image: ImageFile) -> int:
    orientation = image.tag_v2.get(_ORIENTATION, 1) if isinstance(image, TiffImageFile) else 1
    return orientation if isinstance(orientation, int) else 1


def _jpeg_scan_start(data: bytes) -> int:
    """Offset of the entropy-coded data. The part before may hold a preview with its own end mark."""
    offset = 2
    while data[offset : offset + 1] == b"\xff":
        marker = data[offset + 1 : offset + 2]
        if marker == b"\xda":
            return offset
        offset += 1 if marker == b"\xff" else 2 + max(2, int.from_bytes(data[offset + 2 : offset + 4], "big"))
    return 2  # not a marker: decoders continue at the next one


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk of a PNG, complete or truncated. The last may lack its checksum."""
    offset, kind = 8, b""
    while offset + 8 <= len(data) and kind != b"IEND":
        start, kind = offset, data[offset + 4 : offset + 8]
        offset += 12 + int.from_bytes(data[offset : offset + 4], "big")
        yield kind, start, offset


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts and colour profile. Pillow unpacks them, and refuses the image if they are large."""
    drop = [(start, end) for kind, start, end in _png_chunks(data) if kind in _TEXTS and end <= len(data)]
    if not drop:
        return data
    for start, end in drop:
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ImageError("a damaged PNG (a text or profile does not match its checksum)")
    bounds = [0, *(offset for pair in drop for offset in pair), len(data)]
    return b"".join(data[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True))
