"""Bytes of a set's shards: from files on disk, or from objects by one range request each."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from griffon_shards.storage import Location, ObjectPath

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

    def size(self, name: str) -> int | None:
        """The size of a shard in bytes, or None if it is no regular file. Raises as `read`."""


class LocalShards:
    """The shards in a folder. The most recent ones stay open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._file = lru_cache(_OPEN_SHARDS)(self._open)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Implement `ShardBytes.read`."""
        file = self._file(name)  # keep a reference, or it may be closed before the read
        return os.pread(file.descriptor, size, offset)

    def size(self, name: str) -> int | None:
        """Implement `ShardBytes.size`."""
        path = self._root / name
        status = path.stat()
        return status.st_size if path.is_file() else None

    def _open(self, name: str) -> "_OpenFile":
        return _OpenFile(self._root / name)


class ObjectShards:
    """The shards below a URL."""

    def __init__(self, root: ObjectPath) -> None:
        self._root = root

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Implement `ShardBytes.read`."""
        return (self._root / name).read_range(offset, size)

    def size(self, name: str) -> int | None:
        """Implement `ShardBytes.size`."""
        return (self._root / name).size()


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
