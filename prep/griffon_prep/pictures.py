"""Pictures: found under the image root, read as they are, and checked without a full-size decode."""

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from griffon_prep.records import Rejected
from griffon_shards.decoding import DECODE_ERRORS

CHECKS = ("header", "decode", "none")
"""How a picture is checked; see `check_picture`."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_MAGIC = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"RIFF", "WEBP"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture's stored bytes, its true coding (Pillow's name for it) and its stored size, EXIF orientation apart."""

    data: bytes
    format: str
    width_px: int
    height_px: int


def read_picture(root: str, image_path: str, elsewhere: Sequence[str] = ()) -> bytes:
    """The bytes of a picture, looked for under `root` by its whole path, then the last two parts, then the last.

    Args:
        root: absolute folder.
        image_path: as the annotation names the picture.
        elsewhere: further paths to look for it by, in the same way.

    Raises:
        Rejected: `path_outside_root`, `picture_not_found`, or `picture_unreadable` for what is no file or over 1 GiB.
        OSError: the storage fails; that is not the record's fault.
    """
    for candidate in chain.from_iterable(_candidates(root, path) for path in (image_path, *elsewhere)):
        try:
            descriptor = os.open(candidate, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not hold the build up
        except OSError as error:
            if error.errno in _NOT_THERE:
                continue
            if error.errno in (errno.EACCES, errno.EPERM):
                raise Rejected("picture_unreadable", f"{image_path}: no permission to read it") from None
            if error.errno == errno.ENXIO:
                raise Rejected("picture_unreadable", f"{image_path}: a socket, no file") from None
            raise
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                continue
            if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _MAX_BYTES:
                raise Rejected("picture_unreadable", f"{image_path}: an empty file, over 1 GiB, or no file")
            return _read_all(descriptor, status.st_size)
        finally:
            os.close(descriptor)
    hint = backslash_hint(image_path)
    raise Rejected(
        "picture_not_found", f"{image_path}{hint and '; '}{hint}" if image_path else "the record's path is empty"
    )


def backslash_hint(path: str) -> str:
    """What to say of a path that is not found and was written on Windows; empty if it was not."""
    return "its backslashes do not part folders here; write / in their place" if "\\" in path else ""


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _candidates(root: str, image_path: str) -> Iterator[str]:
    """Places to look for a picture, each inside the root."""
    if "\0" in image_path:
        raise Rejected("path_outside_root", f"{image_path!r:.200}: a NUL in a path")
    relative = image_path
    if posixpath.isabs(image_path):
        relative = posixpath.relpath(image_path, root)
    relative = posixpath.normpath(relative)
    if relative == ".." or relative.startswith("../"):
        raise Rejected("path_outside_root", image_path)
    yield f"{root}/{relative}"
    parts = relative.split("/")
    for count in (2, 1):
        if len(parts) > count:
            yield posixpath.join(root, *parts[-count:])


def check_picture(data: bytes, check: str, stated_size_px: tuple[int, int], name: str) -> Picture:
    """Recognise a picture and check it.

    Args:
        data: its bytes.
        check: `header`: format and size are read. `decode`: a picture that is cut short is found as well, JPEG by
            entropy-decoding at an eighth of the size, PNG by its chunk checksums, the rarer formats by decoding.
            `none`: the record's word is taken for the size; where it has none, as `header`.
        stated_size_px: width and height as the record states them, zeros where it does not.
        name: of the picture, for the reject list.

    Raises:
        Rejected: `picture_unreadable` or `size_mismatch`.
    """
    if check == "none" and all(stated_size_px):
        form = next((form for magic, form in _MAGIC if data.startswith(magic)), "")
        if not form:
            raise Rejected("picture_unreadable", f"{name}: not a picture, or one of a kind that is not read")
        return Picture(data=data, format=form, width_px=stated_size_px[0], height_px=stated_size_px[1])
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            form = "JPEG" if image.format == "MPO" else str(image.format)
            width_px, height_px = image.size
            if check == "decode":
                _decode(image, form)
    except UnidentifiedImageError:  # Pillow's words for it hold a memory address
        raise Rejected("picture_unreadable", f"{name}: not a picture, or one of a kind that is not read") from None
    except DECODE_ERRORS as error:
        raise Rejected("picture_unreadable", f"{name}: {str(error) or type(error).__name__}") from None
    if any(stated_size_px) and (width_px, height_px) != stated_size_px:
        stated = "{}x{}".format(*stated_size_px)
        raise Rejected("size_mismatch", f"{name}: the picture is {width_px}x{height_px}, the record says {stated}")
    return Picture(data=data, format=form, width_px=width_px, height_px=height_px)


def _decode(image: Image.Image, form: str) -> None:
    if form == "PNG":
        image.verify()
        return
    if form == "JPEG":
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()


def shrink_picture(picture: Picture, longest_px: int, name: str) -> Picture:
    """The picture with its longer side at most `longest_px`, as a JPEG of quality 95; unchanged if it is no larger.

    Raises:
        Rejected: `picture_unreadable`.
    """
    longest = max(picture.width_px, picture.height_px)
    if longest <= longest_px:
        return picture
    size = (
        max(1, round(picture.width_px * longest_px / longest)),
        max(1, round(picture.height_px * longest_px / longest)),
    )
    out = BytesIO()
    try:
        with Image.open(BytesIO(picture.data), formats=_FORMATS) as image:
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95)
    except DECODE_ERRORS as error:
        raise Rejected("picture_unreadable", f"{name}: {str(error) or type(error).__name__}") from None
    return Picture(data=out.getvalue(), format="JPEG", width_px=size[0], height_px=size[1])


def absolute_root(root: Path) -> str:
    """An image root as pictures are looked for under it."""
    return os.path.normpath(root.absolute())
