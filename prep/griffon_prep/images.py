"""Pictures: found under the image root, read as they are, and checked without a full-size decode."""

import errno
import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from griffon_prep.records import Rejected
from griffon_shards.images import (
    SIDEWAYS,
    Header,
    ImageError,
    check_end,
    decode,
    format_of,
    orientation,
    read_header,
)

CHECKS = ("header", "decode", "none")
"""How a picture is checked; see `check_image`."""

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)
_MAX_BYTES = 1 << 30
_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture's stored bytes, its true coding (Pillow's name for it) and its stored size, EXIF orientation apart."""

    data: bytes
    format: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A picture's bytes, and whether the last part of its path was all that it was found by."""

    data: bytes
    by_last_part: bool


def read_image(root: str, image_path: str, elsewhere: Sequence[str] = ()) -> ImageFile:
    """A picture, looked for under `root` by its whole path, then the last two parts, then the last.

    A path from elsewhere (absolute and not under `root`, a URL, a Windows path) is looked for by its last parts.

    Args:
        root: absolute folder.
        image_path: as the annotation names the picture.
        elsewhere: further paths to look for it by, in the same way.

    Raises:
        Rejected: `path_outside_root`, `picture_not_found`, or `picture_unreadable` for what is no file or over 1 GiB.
        OSError: the storage fails; that is not the record's fault.
    """
    for candidate, by_last_part in chain.from_iterable(_candidates(root, path) for path in (image_path, *elsewhere)):
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
            if not stat.S_ISREG(status.st_mode):
                raise Rejected("picture_unreadable", f"{image_path}: a pipe or device, no file")
            if not status.st_size:
                raise Rejected("picture_unreadable", f"{image_path}: an empty file")
            if status.st_size > _MAX_BYTES:
                raise Rejected("picture_unreadable", f"{image_path}: {status.st_size:,} bytes, over 1 GiB")
            return ImageFile(data=_read_all(descriptor, status.st_size), by_last_part=by_last_part)
        finally:
            os.close(descriptor)
    raise Rejected("picture_not_found", _not_found(root, image_path))


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _candidates(root: str, image_path: str) -> Iterator[tuple[str, bool]]:
    """Places to look for a picture, each inside the root, and whether only the last part of a longer path is left."""
    if "\0" in image_path:
        raise Rejected("path_outside_root", f"{image_path!r:.200}: a NUL in a path")
    paths = [_under(root, spelling) for spelling in _spellings(image_path)]
    yield from ((f"{root}/{path}", False) for path in paths if not path.startswith("/"))
    for count in (2, 1):
        for path in paths:
            parts = path.lstrip("/").split("/")
            if len(parts) > count or path.startswith("/"):
                yield posixpath.join(root, *parts[-count:]), count == 1 < len(parts)


def _under(root: str, image_path: str) -> str:
    """The path relative to the root; absolute where it is somebody else's."""
    relative = posixpath.normpath(image_path)
    if posixpath.isabs(relative):
        below = posixpath.relpath(relative, root)
        return relative if below == ".." or below.startswith("../") else below
    if relative == ".." or relative.startswith("../"):
        raise Rejected("path_outside_root", image_path)
    return relative


def _spellings(path: str) -> list[str]:
    """Ways to write one path: as it is, with Windows' separators turned, a URL's path, other forms of its accents."""
    spellings = [path]
    if "\\" in path:
        spellings.append(path.replace("\\", "/"))
    if "://" in path:
        spellings.append(unquote(path.partition("?")[0]))
    if not path.isascii():  # macOS decomposes what others compose
        spellings += [unicodedata.normalize(form, each) for each in tuple(spellings) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(spellings))


def _not_found(root: str, image_path: str) -> str:
    if not image_path:
        return "the record's path is empty"
    if "\\" in image_path:
        return f"{image_path}: nor with slashes for its backslashes"
    below = _under(root, image_path)
    if below.startswith("/"):
        return f"{image_path}: not under the image root, nor is its last part"
    stem, _ = posixpath.splitext(below)
    for name in (stem + ending for ending in _ENDINGS):
        if os.access(f"{root}/{name}", os.F_OK):
            return f"{image_path}: there is {name}; rename the files, or the paths in the annotation"
    return image_path


def check_image(data: bytes, check: str, stated_size_px: tuple[int, int], name: str) -> Picture:
    """Recognise a picture and check it.

    Args:
        data: its bytes.
        check: `header`: coding, size and end mark are read, which finds most that is cut short. `decode`: all that is
            cut short is found, see `griffon_shards.images.read_header`. `none`: the record's word is taken for the
            size; where it has none, as `header`.
        stated_size_px: width and height as the record states them, zeros where it does not.
        name: of the picture, for the reject list.

    Raises:
        Rejected: `picture_unreadable` or `size_mismatch`.
    """
    with _rejecting(name):
        if check == "none" and all(stated_size_px):
            form = format_of(data)
            return Picture(data=data, format=form, width_px=stated_size_px[0], height_px=stated_size_px[1])
        header = read_header(data, check_pixels=check == "decode")
        if check == "header":
            check_end(data)
        if any(stated_size_px) and (header.width_px, header.height_px) != stated_size_px:
            raise Rejected("size_mismatch", f"{name}: {_other_size(data, header, stated_size_px)}")
    return Picture(data=data, format=header.format, width_px=header.width_px, height_px=header.height_px)


def _other_size(data: bytes, header: Header, stated_size_px: tuple[int, int]) -> str:
    width_px, height_px = header.width_px, header.height_px
    said = "the picture is {}x{}, the record says {}x{}".format(width_px, height_px, *stated_size_px)
    if stated_size_px != (height_px, width_px):
        return said
    turned = orientation(data)
    if turned not in SIDEWAYS:
        return f"{said}: width and height are swapped"
    return (
        f"{said}: it was annotated as its EXIF orientation {turned} shows it, and boxes must refer to the picture "
        "as it is stored; store the pictures upright (`jpegtran`, `exiftran -a`) or turn the annotation"
    )


def shrink_image(picture: Picture, longest_px: int, name: str) -> Picture:
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
    with _rejecting(name):
        decode(picture.data).resize(size, Image.Resampling.LANCZOS).save(out, "JPEG", quality=95)
    return Picture(data=out.getvalue(), format="JPEG", width_px=size[0], height_px=size[1])


@contextmanager
def _rejecting(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise Rejected("picture_unreadable", f"{name}: {error}") from None


def absolute_root(root: Path) -> str:
    """An image root as pictures are looked for under it."""
    return os.path.normpath(root.absolute())
