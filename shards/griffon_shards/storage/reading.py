"""Files and objects read in the same way: in one go from the beginning, or listed below a folder."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from griffon_shards.storage import Location, ObjectPath

_PIECE_BYTES = 1 << 20
_RANGE_BYTES = 8 << 20


def open_location(location: Location) -> BinaryIO:
    """Open a file or an object for reading from the beginning; of an object, each request reads 8 MiB.

    Raises:
        FileNotFoundError: there is no such file or object.
        StorageError: the object store cannot be used; also when reading.
    """
    if isinstance(location, ObjectPath):
        return cast(BinaryIO, io.BufferedReader(_Ranges(location), _RANGE_BYTES))
    return location.open("rb")


def sizes_below(folder: Location) -> dict[str, int]:
    """Size in bytes of every file or object below a folder, by its name relative to the folder, in order of the names.

    Linked folders are entered, each once. A folder that does not exist has no files.

    Raises:
        StorageError: the object store cannot be used.
    """
    if isinstance(folder, ObjectPath):
        return dict(folder.listing())
    paths: list[Path] = []
    entered: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        paths += [Path(parent) / name for name in names]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(paths) if path.is_file()}


def sha256_at(location: Location, moved: Callable[[int], object] = lambda _: None) -> str:
    """SHA-256 of a file or an object in lower-case hexadecimal.

    Args:
        location: the file or the object.
        moved: called with the number of bytes of each piece that was read.

    Raises as `open_location`.
    """
    digest = hashlib.sha256()
    with open_location(location) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            moved(len(piece))
    return digest.hexdigest()


class _Ranges(io.RawIOBase):
    """An object as a raw stream: each read is one range request."""

    def __init__(self, source: ObjectPath) -> None:
        self._source = source
        self._size_bytes = source.size()
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = min(len(buffer), self._size_bytes - self._position)
        buffer[:size] = self._source.read_range(self._position, size)
        self._position += size
        return size
