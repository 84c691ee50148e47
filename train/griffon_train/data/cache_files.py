"""The samples of a cache on disk: a partial copy of each shard.

A sample is at its own offset in a sparse file; to remove it, its range becomes a hole. There is nothing to allocate and
nothing to compact. Blocks that two samples share stay until the next run: up to 4 kB for each sample of the sets.

Files of a set are in a folder with its digest. Whatever a kill or a crash leaves behind is checked against the index
when it is read, so nothing is synced.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import UNUSABLE
from griffon_shards.support.folder_lock import lock_folder

_FOLDER = "griffon-samples-1"  # below the user's folder, so that nothing else is there
_ROWS = "rows"
_LOCK = "lock"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h


class CacheFiles:
    """The cached samples of some sets. Threads may share it, but no two may use one sample at the same time."""

    def __init__(self, folder: Path, sets: Sequence[FrozenSet]) -> None:
        """Open the cache, and remove what it has of other sets.

        Raises:
            SettingsError: another run uses the folder, it cannot be made, or its file system has no sparse files.
            OSError: the folder cannot be written.
        """
        self._root = folder / _FOLDER
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in UNUSABLE:
                raise
            raise SettingsError(
                f"--cache {folder}: cannot be made ({error.strerror}); give a folder on this machine's disk"
            ) from None
        self._lock = lock_folder(
            self._root / _LOCK, whose=f"{folder}: another run uses this cache", instead="give each run its own --cache"
        )
        _check_holes(self._root, folder)
        digests = {frozen.lock.digest for frozen in sets}
        for path in self._root.iterdir():
            if _DIGEST.fullmatch(path.name) and path.name not in digests:
                shutil.rmtree(path)
        self._sets = tuple(sets)
        self._rows = tuple(_open_rows(self._root / frozen.lock.digest, len(frozen)) for frozen in sets)
        for set_no in range(len(sets)):
            self._free_unlisted(set_no)

    def rows(self, set_no: int) -> NDArray[np.int64]:
        """The rows of a set that are cached."""
        return np.flatnonzero(self._rows[set_no])

    def read(self, set_no: int, row: int) -> bytes | None:
        """The tar bytes of a row; None if they are not there or damaged."""
        if not self._rows[set_no][row]:
            return None
        path, offset, size_bytes = self._range(set_no, row)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            data = os.pread(file, size_bytes, offset)
        finally:
            os.close(file)
        return data if self._sets[set_no].is_intact(row, data) else None

    def write(self, set_no: int, row: int, data: bytes) -> None:
        """Keep the tar bytes of a row.

        Raises:
            OSError: the disk is full.
        """
        path, offset, _ = self._range(set_no, row)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            written = os.pwrite(file, data, offset)
        finally:
            os.close(file)
        if written < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._rows[set_no][row] = 1

    def remove(self, set_no: int, row: int) -> None:
        """Free a row's space."""
        self._rows[set_no][row] = 0
        self._free(*self._range(set_no, row))

    def close(self) -> None:
        """Let other runs use the folder."""
        self._lock.close()

    def _range(self, set_no: int, row: int) -> tuple[Path, int, int]:
        entry = self._sets[set_no].index[row]
        name = f"{int(entry['shard']):06d}"
        return self._root / self._sets[set_no].lock.digest / name, int(entry["offset"]), int(entry["bytes"])

    def _free(self, path: Path, offset: int, size_bytes: int) -> None:
        try:
            file = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return
        try:
            _make_hole(file, offset, size_bytes)
        finally:
            os.close(file)

    def _free_unlisted(self, set_no: int) -> None:
        """Free what was written but not listed when a run was killed."""
        frozen = self._sets[set_no]
        shards, offsets, sizes = (frozen.index[name] for name in ("shard", "offset", "bytes"))
        first_rows = np.searchsorted(shards, np.arange(len(frozen.lock.shards) + 1))
        for shard_no, shard in enumerate(frozen.lock.shards):
            path = self._root / frozen.lock.digest / f"{shard_no:06d}"
            if not path.exists():
                continue
            rows = first_rows[shard_no] + np.flatnonzero(
                self._rows[set_no][first_rows[shard_no] : first_rows[shard_no + 1]]
            )
            starts = [0, *(offsets[rows] + sizes[rows]).tolist()]
            ends = [*offsets[rows].tolist(), shard.bytes]
            for start, end in zip(starts, ends, strict=True):
                if end > start:
                    self._free(path, start, end - start)


def _open_rows(folder: Path, count: int) -> NDArray[np.uint8]:
    """Which rows are cached, one byte each, mapped for writing; all zero at first."""
    folder.mkdir(exist_ok=True)
    path = folder / _ROWS
    with path.open("ab") as file:
        file.truncate(count)
    return np.memmap(path, np.uint8, "r+", shape=(count,)) if count else np.empty(0, np.uint8)


def _check_holes(root: Path, folder: Path) -> None:
    path = root / "hole"
    try:
        with path.open("wb") as file:
            file.write(b"\0" * 8192)
            file.flush()
            _make_hole(file.fileno(), 0, 8192)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        raise SettingsError(
            f"--cache {folder}: its file system cannot free parts of files; give a folder on a local disk with ext4, "
            "xfs, btrfs or tmpfs"
        ) from None
    finally:
        path.unlink(missing_ok=True)


def _make_hole(file: int, offset: int, size_bytes: int) -> None:
    """Free a range of a file. Source: fallocate(2)."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, "holes in files are supported on Linux only")
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    arguments = (ctypes.c_int(file), _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(size_bytes))
    if fallocate(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
