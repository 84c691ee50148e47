"""Bytes of a set's shards: from files on disk, or from objects by one range request each."""

import os
from collections.abc import Mapping, Sequence
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
