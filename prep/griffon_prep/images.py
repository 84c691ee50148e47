"""Finding images under the image root, reading their bytes and checking them without a full-size decode."""

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from griffon_prep.image_bytes import image_bytes, is_there, is_url
from griffon_prep.records import Rejected
from griffon_shards.images import (
    SHOWING,
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
"""Ways to check an image; see `check_image`."""

_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image's bytes, its actual format (by Pillow's name) and its stored size. EXIF orientation is not applied."""

    data: bytes
    format: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image's bytes, and whether it was found by the file name alone."""

    data: bytes
    by_last_part: bool


def read_image(root: str, image_path: str, elsewhere: Sequence[str] = (), known_file: str | None = None) -> ImageFile:
    """Read an image, searched under `root` by its full path, then by the last two path components, then by the last.

    Foreign paths (absolute and not under `root`, URLs, Windows paths) are searched by their last components.

    Args:
        root: absolute folder, or the URL of one.
        image_path: path as the annotation gives it.
        elsewhere: alternative paths, searched in the same way.
        known_file: absolute path of the image, if the annotation tells it exactly. If it is under `root`, nothing else
            is looked for: other folders may repeat the name.

    Raises:
        Rejected: `path_outside_root`, `picture_not_found`, or `picture_unreadable` if it is not a regular file or is
            larger than 1 GiB.
        OSError: the storage fails, which is not a fault of the record.
        StorageError: the object store cannot be used.
    """
    candidates: Iterable[tuple[str, bool]]
    if known_file is not None and not is_url(root) and _is_under(root, known_file):
        candidates = [(known_file, False)]
    else:
        candidates = chain.from_iterable(_candidates(root, path) for path in (image_path, *elsewhere))
    for candidate, by_last_part in candidates:
        data = image_bytes(candidate, image_path)
        if data is not None:
            return ImageFile(data=data, by_last_part=by_last_part)
    raise Rejected("picture_not_found", _not_found(root, image_path))


def _is_under(root: str, file: str) -> bool:
    """Whether a file is in a folder or below it, by their names or by where links lead."""
    folder = posixpath.dirname(file)
    pairs = (root, os.path.normpath(folder)), (os.path.realpath(root), os.path.realpath(folder))
    return any(os.path.commonpath(pair) == pair[0] for pair in pairs)


def _candidates(root: str, image_path: str) -> Iterator[tuple[str, bool]]:
    """Yield candidate paths inside the root, and for each whether only the file name of a longer path is used."""
    if "\0" in image_path:
        raise Rejected("path_outside_root", f"{image_path!r:.200}: the path contains a NUL character")
    paths = [_under(root, spelling) for spelling in _spellings(image_path)]
    yield from ((f"{root}/{path}", False) for path in paths if not path.startswith("/"))
    for count in (2, 1):
        for path in paths:
            parts = path.lstrip("/").split("/")
            if len(parts) > count or path.startswith("/"):
                yield posixpath.join(root, *parts[-count:]), count == 1 < len(parts)


def _under(root: str, image_path: str) -> str:
    """Return the path relative to the root, or unchanged if it is an absolute path outside it."""
    if is_url(root):  # under which the annotation may give full URLs
        image_path = image_path.removeprefix(f"{root}/")
    relative = posixpath.normpath(image_path)
    if posixpath.isabs(relative):
        below = ".." if is_url(root) else posixpath.relpath(relative, root)
        return relative if below == ".." or below.startswith("../") else below
    if relative == ".." or relative.startswith("../"):
        raise Rejected("path_outside_root", image_path)
    return relative


def _spellings(path: str) -> list[str]:
    """Alternative spellings of a path: as given, with slashes for backslashes, URL-decoded, in other Unicode forms."""
    spellings = [path]
    if "\\" in path:
        spellings.append(path.replace("\\", "/"))
    if "://" in path:
        spellings.append(unquote(path.partition("?")[0]))
    if not path.isascii():  # macOS stores decomposed characters, other systems composed ones
        spellings += [unicodedata.normalize(form, spelling) for spelling in tuple(spellings) for form in ("NFC", "NFD")]
    return list(dict.fromkeys(spellings))


def _not_found(root: str, image_path: str) -> str:
    if not image_path:
        return "the image path in the record is empty"
    if "\\" in image_path:
        return f"{image_path}: not found, nor with slashes instead of backslashes"
    below = _under(root, image_path)
    if below.startswith("/"):
        return f"{image_path}: not under the image root, and its file name was not found there either"
    stem, _ = posixpath.splitext(below)
    for name in (stem + ending for ending in _ENDINGS):
        if is_there(f"{root}/{name}"):
            return f"{image_path}: not found, but {name} exists; rename the files or the paths in the annotation"
    return image_path


def shown_size(data: bytes, name: str, *, upright: bool) -> tuple[int, int]:
    """Return width and height of an image whose size no record states: as stored, or with `upright` as viewers show it.

    Raises:
        Rejected: `picture_unreadable`; without `upright` also `size_mismatch` for an image that viewers turn or mirror,
            because nothing tells which way up it was annotated.
    """
    with _rejecting(name):
        header, exif_orientation = read_header(data), orientation(data)
    if exif_orientation in SHOWING and not upright:
        raise Rejected(
            "size_mismatch",
            f"{name}: its EXIF orientation is {exif_orientation}, and without a size in the record it is not known "
            "whether it was annotated as stored or as shown; add orientation=shown to the manifest line, or remove the "
            "orientation from the image",
        )
    return _as_shown(header.width_px, header.height_px, exif_orientation)


def check_not_turned(data: bytes, name: str) -> None:
    """Reject an image that viewers turn or mirror, if its size is the same then: a stated size tells nothing.

    Raises:
        Rejected: `picture_unreadable` or `size_mismatch`.
    """
    with _rejecting(name):
        header, exif_orientation = read_header(data), orientation(data)
    sides_tell = exif_orientation in SIDEWAYS and header.width_px != header.height_px
    if exif_orientation in SHOWING and not sides_tell:
        raise Rejected(
            "size_mismatch",
            f"{name}: its EXIF orientation is {exif_orientation}, which keeps its size, so it is not known whether it "
            "was annotated as stored or as shown; add orientation=shown to the manifest line, or remove the "
            "orientation from the image",
        )


def _as_shown(width_px: int, height_px: int, exif_orientation: int) -> tuple[int, int]:
    return (height_px, width_px) if exif_orientation in SIDEWAYS else (width_px, height_px)


def check_image(
    data: bytes, check: str, stated_size_px: tuple[int, int], name: str, *, upright: bool = False
) -> StoredImage:
    """Detect the format of an image and check it.

    Args:
        data: the bytes of the file.
        check: `header` reads format, size and end marker, which finds most truncated files. `decode` finds all
            truncated files, see `griffon_shards.images.read_header`. `none` trusts the size in the record; a record
            without a size has the image's header read.
        stated_size_px: width and height that the record states, or zeros.
        name: the image's name in the reject list.
        upright: the sizes, stated and returned, are those of the image as viewers show it; see `bake_image`.

    Raises:
        Rejected: `picture_unreadable` or `size_mismatch`.
    """
    with _rejecting(name):
        if check == "none" and all(stated_size_px):
            form = format_of(data)
            return StoredImage(data=data, format=form, width_px=stated_size_px[0], height_px=stated_size_px[1])
        header = read_header(data, check_pixels=check == "decode")
        if check == "header":
            check_end(data)
        width_px, height_px = _as_shown(header.width_px, header.height_px, orientation(data) if upright else 1)
        if any(stated_size_px) and (width_px, height_px) != stated_size_px:
            raise Rejected("size_mismatch", f"{name}: {_other_size(data, header, stated_size_px, upright)}")
    return StoredImage(data=data, format=header.format, width_px=width_px, height_px=height_px)


def _other_size(data: bytes, header: Header, stated_size_px: tuple[int, int], upright: bool) -> str:
    exif_orientation = orientation(data)
    width_px, height_px = _as_shown(header.width_px, header.height_px, exif_orientation if upright else 1)
    sizes = "the image is {}x{}, the record says {}x{}".format(width_px, height_px, *stated_size_px)
    if stated_size_px != (height_px, width_px):
        return sizes
    if exif_orientation not in SIDEWAYS:
        return f"{sizes}: width and height are swapped"
    if upright:
        return (
            f"{sizes}: it was annotated as it is stored, without its EXIF orientation {exif_orientation}; if all "
            "images were, remove orientation=shown from the manifest line"
        )
    return (
        f"{sizes}: it was annotated as its EXIF orientation {exif_orientation} shows it, but boxes refer to the stored "
        "pixels; if all images were, add orientation=shown to the manifest line"
    )


def shrunk_size(width_px: int, height_px: int, longest_px: int | None) -> tuple[int, int]:
    """Return the width and height of an image that is shrunk to a longer side of `longest_px`, or is not shrunk."""
    longest = max(width_px, height_px)
    if longest_px is None or longest <= longest_px:
        return width_px, height_px
    return max(1, round(width_px * longest_px / longest)), max(1, round(height_px * longest_px / longest))


def bake_image(image: StoredImage, longest_px: int | None, name: str, *, upright: bool = False) -> StoredImage:
    """Shrink an image to a longer side of `longest_px`, and turn it upright, as JPEG of quality 95.

    An image of which neither changes a pixel is returned as it is.

    Args:
        image: as `check_image` returned it with the same `upright`.
        longest_px: maximum longer side, or None to keep the size.
        name: the image's name in the reject list.
        upright: apply the EXIF orientation to the pixels. The new image has none.

    Raises:
        Rejected: `picture_unreadable`.
    """
    size = shrunk_size(image.width_px, image.height_px, longest_px)
    with _rejecting(name):
        turn = SHOWING.get(orientation(image.data)) if upright else None
        if turn is None and size == (image.width_px, image.height_px):
            return image
        pixels = decode(image.data)
        if turn is not None:
            pixels = pixels.transpose(turn)
        if size != (image.width_px, image.height_px):
            pixels = pixels.resize(size, Image.Resampling.LANCZOS)
        out = BytesIO()
        pixels.save(out, "JPEG", quality=95)
    return StoredImage(data=out.getvalue(), format="JPEG", width_px=size[0], height_px=size[1])


@contextmanager
def _rejecting(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise Rejected("picture_unreadable", f"{name}: {error}") from None


def stored_path(image_path: str) -> str:
    """The path of an image as a sample states it: as the annotation gives it, or the last two parts of a foreign path.

    Absolute paths, URLs and Windows paths say where files are on somebody's machine, which a set does not tell.
    """
    path = image_path.replace("\\", "/")
    if "://" in path:
        path = unquote(path.partition("?")[0])
    elif not path.startswith("/") and path[1:3] != ":/":
        return _valid_unicode(posixpath.normpath(path)) if path else ""
    return _valid_unicode("/".join([part for part in path.split("/") if part][-2:]))


def _valid_unicode(path: str) -> str:
    return path.encode("utf-8", "replace").decode("utf-8")


def absolute_root(root: Path) -> str:
    """Return the image root as an absolute, normalized path without resolving symbolic links."""
    return os.path.normpath(root.absolute())
