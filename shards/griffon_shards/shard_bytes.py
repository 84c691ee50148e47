"""Bytes of a set's shards: from files on disk, or from objects by one range request each."""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.errors import StorageError
from griffon_shards.support.errors import DataError

_FIRST_WINDOW_BYTES = 256 << 10
_LAST_WINDOW_BYTES = 8 << 20
_OPEN_SHARDS = 64  # a set can have more shards than a process may have open files


class ShardBytes(Protocol):
    """Random access to the shards of a set. Threads may share it."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes [offset, offset + size) of a shard; fewer if it is truncated.

        Raises:
            FileNotFoundError: there is no such shard.
            StorageError: the object store cannot be used.
            OSError: the disk fails.
        """

    def sizes(self, names: Sequence[str]) -> Mapping[str, int | None]:
        """The sizes in bytes of those of these shards that exist; None for what is no regular file.

        Raises:
            StorageError: the object store cannot be used.
        """


class LocalShards:
    """The shards in a folder. The most recent ones stay open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = lru_cache(_OPEN_SHARDS)(self._open)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Implement `ShardBytes.read`."""
        file = self._file(name)  # keep a reference, or it may be closed before the read
        return os.pread(file.descriptor, size, offset)

    def sizes(self, names: Sequence[str]) -> Mapping[str, int | None]:
        """Implement `ShardBytes.sizes`."""
        paths = {name: self._root / name for name in names}
        return {name: path.stat().st_size if path.is_file() else None for name, path in paths.items() if path.exists()}

    def _open(self, name: str) -> "_OpenFile":
        return _OpenFile(self._root / name)


class ObjectShards:
    """The shards below a URL."""

    def __init__(self, root: ObjectPath) -> None:
        self._root = root

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Implement `ShardBytes.read`."""
        return (self._root / name).read_range(offset, size)

    def sizes(self, names: Sequence[str]) -> Mapping[str, int | None]:
        """Implement `ShardBytes.sizes`, with one listing instead of a request for each shard."""
        wanted = set(names)
        return {name: size_bytes for name, size_bytes in self._root.listing() if name in wanted}


class ReadAhead:
    """The shards below a URL, for one thread that reads them in order: a request covers several samples.

    Requests double up to 8 MiB while the reads go forwards. After a jump they begin small again.
    """

    def __init__(self, root: ObjectPath, sizes: Mapping[str, int]) -> None:
        self._objects = ObjectShards(root)
        self._sizes = sizes
        self._name, self._start, self._data = "", 0, b""
        self._window = _FIRST_WINDOW_BYTES

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Implement `ShardBytes.read`."""
        end = self._start + len(self._data)
        same = name == self._name and self._start <= offset
        if not same or offset + size > end:
            forwards = same and offset <= end + self._window
            self._window = min(2 * self._window, _LAST_WINDOW_BYTES) if forwards else _FIRST_WINDOW_BYTES
            ahead = max(size, min(self._window, self._sizes[name] - offset))
            try:
                self._data = self._objects.read(name, offset, ahead)
            except StorageError:
                raise
            except DataError:  # truncated, perhaps after this sample
                self._data = self._objects.read(name, offset, size)
            self._name, self._start = name, offset
        place = offset - self._start
        return self._data[place : place + size]

    def sizes(self, names: Sequence[str]) -> Mapping[str, int | None]:
        """Implement `ShardBytes.sizes`."""
        return self._objects.sizes(names)


def shard_bytes(root: Location) -> ShardBytes:
    """Access to the shards of the set at a location."""
    return ObjectShards(root) if isinstance(root, ObjectPath) else LocalShards(root)


class _OpenFile:
    """A file descriptor that is closed when the last reference to it is gone."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
