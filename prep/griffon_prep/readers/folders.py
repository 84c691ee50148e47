"""Annotations that are folders: their files in a fixed order, their hash, and a table of names in the work folder.

A source's folder is hashed as `sha256sum` would list its files, and read file by file: any process can read the file of
any record alone.
"""

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import sha256_of, write_whole
from griffon_shards.support.tables import counted

TEXTS = frozenset({".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".parquet"})
"""Endings of the files that annotations consist of. Others, such as the caches of trainers, do not change a hash."""

IMAGES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo", ".avif", ".gif", ".heic", ".dng", ".pfm"}
)
"""Endings of images, of which only the names are part of a hash."""

_PACKED = frozenset({".gz", ".zst"})
_NOT_READ = "-" * 64  # stands for the hash of an image
_OFFSET = np.dtype("<u8")


def files_below(folder: Path, endings: frozenset[str]) -> list[str]:
    """Return the paths of files relative to a folder, separated by `/`, sorted by their UTF-8 bytes.

    Linked folders are entered, each folder once. Hidden files and folders are left out, among them the `._` files that
    macOS adds to archives.

    Raises:
        DataError: the name of a file is not UTF-8.
        OSError: the storage fails.
    """
    paths = [path for path in _walk(os.fspath(folder), "", set()) if posixpath.splitext(path)[1].lower() in endings]
    try:
        return sorted(paths, key=str.encode)
    except UnicodeEncodeError as error:
        raise DataError(f"{folder}: the file name {error.object!r} is not UTF-8; rename the file") from None


def packed_notes(folder: Path, endings: frozenset[str]) -> tuple[str, ...]:
    """A note about files below a folder that are not read because they are compressed; none if there are none."""
    packed = [
        name for name in files_below(folder, _PACKED) if posixpath.splitext(posixpath.splitext(name)[0])[1] in endings
    ]
    if not packed:
        return ()
    files = counted(len(packed), "compressed file is", "compressed files are")
    return (f"{files} not read, such as {packed[0]}; decompress the files of a folder",)


def _walk(folder: str, prefix: str, entered: set[tuple[int, int]]) -> Iterator[str]:
    status = os.stat(folder)  # noqa: PTH116 - of 200,000 files, pathlib takes a second more
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):  # which link of two is entered
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/", entered)
            elif entry.is_file():
                yield prefix + entry.name


def sha256_of_input(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of a list of its files.

    The list has a line for each file, sorted by path, as `sha256sum` writes it: hash, two spaces, path. Instead of the
    hash of an image there are 64 dashes.
    """
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for name in files_below(path, TEXTS | IMAGES):
        sha256 = sha256_of(path / name) if _is_text(name) else _NOT_READ
        digest.update(f"{sha256}  {name}\n".encode())
    return digest.hexdigest()


def bytes_of_input(path: Path) -> int:
    """Size of a file; of a folder, that of all its texts."""
    if not path.is_dir():
        return path.stat().st_size
    return sum((path / name).stat().st_size for name in files_below(path, TEXTS))


def stamp_of_input(path: Path) -> tuple[int, int]:
    """Two numbers that change when a file or a text in a folder is written, or an image is added or removed."""
    if not path.is_dir():
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    size, digest = 0, hashlib.blake2b(digest_size=7)
    for name in files_below(path, TEXTS | IMAGES):
        digest.update(name.encode() + b"\0")
        if _is_text(name):
            status = (path / name).stat()
            size += status.st_size
            digest.update(b"%d %d\0" % (status.st_size, status.st_mtime_ns))
    return size, int.from_bytes(digest.digest(), "little")


def _is_text(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in TEXTS


def write_names(table: Path, names: Sequence[str]) -> None:
    """Write a table of names, from which `Names` reads any of them."""
    texts = [name.encode() for name in names]
    bounds = np.cumsum([0, *map(len, texts)]).astype(_OFFSET)
    write_whole(table, np.array([len(texts)], _OFFSET).tobytes() + bounds.tobytes() + b"".join(texts))


class Names:
    """Reads the names of a table by number."""

    def __init__(self, table: Path) -> None:
        self._file = table.open("rb")
        (self._count,) = np.frombuffer(os.pread(self._file.fileno(), 8, 0), _OFFSET).tolist()

    def __getitem__(self, number: int) -> str:
        """Return the name with this number."""
        start, stop = np.frombuffer(os.pread(self._file.fileno(), 16, 8 + 8 * number), _OFFSET).tolist()
        return os.pread(self._file.fileno(), stop - start, 16 + 8 * self._count + start).decode()
