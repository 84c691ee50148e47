"""Random access to a frozen set, by row or by key, with every read checked against the index."""

import mmap
import os
import stat
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.index import INDEX_NAME, open_index
from griffon_shards.lock import Lock, read_lock
from griffon_shards.sample_json import decode_sample
from griffon_shards.support.errors import DataError
from griffon_shards.tar import crc32, split_sample
from griffon_shards.types import Sample

_OPEN_SHARDS = 64  # a set can have more shards than a process may have files


class FrozenSet:
    """A frozen shard set, open for reading. Rows are samples, in shard order; it may be used from several threads.

    Attributes:
        root: the set's folder.
        lock: what was frozen.
        index: the rows of `index.npy`, memory-mapped, dtype `INDEX_DTYPE`, shape [samples].
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock: Lock = read_lock(root)
        self.index: NDArray[np.void] = open_index(root / INDEX_NAME)
        samples = sum(shard.samples for shard in self.lock.shards)
        if len(self.index) != samples:
            raise DataError(f"{root / INDEX_NAME}: has {len(self.index)} rows, but the lock counts {samples} samples")
        ends = np.cumsum([0, *(source.samples for source in self.lock.sources)])
        self._source_rows = {source.tag: (int(ends[i]), int(ends[i + 1])) for i, source in enumerate(self.lock.sources)}
        self._shard = lru_cache(_OPEN_SHARDS)(self._open_shard)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Sample:
        """The sample of a row.

        Raises:
            IndexError: there is no such row.
            DataError: the shard is missing or damaged; the message names shard and key.
        """
        key, image, json = split_sample(self.raw(row), self.where(row))
        if key != self.key(row):
            raise DataError(f"{self.where(row)}: the shard holds {key} there; {self.root / INDEX_NAME} is damaged")
        return decode_sample(key, image, json)

    def raw(self, row: int) -> bytes:
        """The tar bytes of a row's sample, checked against its crc32 in the index. Raises as `__getitem__`."""
        entry = self._entry(row)
        size, offset = int(entry["bytes"]), int(entry["offset"])
        if offset + size > self.lock.shards[int(entry["shard"])].bytes:
            raise DataError(f"{self.where(row)}: beyond the shard's end; {self.root / INDEX_NAME} is damaged")
        try:
            shard = self._shard(int(entry["shard"]))  # named, or it may be closed before it is read
            data = os.pread(shard.descriptor, size, offset)
        except FileNotFoundError:
            raise DataError(f"{self.where(row)}: the shard is missing; copy the set again or build it anew") from None
        if len(data) != size or crc32(data) != int(entry["crc32"]):
            raise DataError(
                f"{self.where(row)}: damaged, its bytes are not those that were frozen; "
                f"`griffon-shards verify {self.root}` lists all damage"
            )
        return data

    def key(self, row: int) -> str:
        """The key of a row: `{tag}-{record_no:09d}`."""
        entry = self._entry(row)
        return f"{self.lock.sources[int(entry['source'])].tag}-{int(entry['record']):09d}"

    def row(self, key: str) -> int:
        """The row of a key.

        Raises:
            DataError: the set has no sample of this key.
        """
        tag, _, number = key.rpartition("-")
        start, end = self._source_rows.get(tag, (0, 0))
        found = (
            np.flatnonzero(self.index["record"][start:end] == int(number))
            if number.isdecimal() and len(number) <= 10
            else np.array([])
        )
        if not found.size or self.key(start + int(found[0])) != key:
            raise DataError(f"{self.root}: no sample has the key {key!r}; `griffon-shards ls {self.root}` lists them")
        return start + int(found[0])

    def rows_of_source(self, tag: str) -> range:
        """The rows of a source, which stand together.

        Raises:
            DataError: the set has no source of this tag.
        """
        if tag not in self._source_rows:
            raise DataError(f"{self.root}: no source {tag!r}; it has {', '.join(self._source_rows)}")
        return range(*self._source_rows[tag])

    def check_shards(self) -> None:
        """See that every shard is there, in its length; none is read.

        Raises:
            DataError: one is missing or cut short; the message names it.
        """
        for shard in self.lock.shards:
            path = self.root / shard.name
            try:
                found = path.stat()
            except FileNotFoundError:
                raise DataError(f"{path}: the shard is missing; copy the set again or build it anew") from None
            if stat.S_ISREG(found.st_mode) and found.st_size != shard.bytes:
                raise DataError(
                    f"{path}: has {found.st_size:,} bytes of {shard.bytes:,}; copy the set again or build it anew"
                )

    def let_index_go(self) -> None:
        """Have the system take the index's pages out of this process, of which a look at a row maps sixteen.

        They stay in the page cache, where all processes of the machine share them, and come back when looked at.
        """
        mapped = self.index.base
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def where(self, row: int) -> str:
        """Shard and key of a row, for messages."""
        return f"{self.root / self.lock.shards[int(self._entry(row)['shard'])].name}, sample {self.key(row)}"

    def _entry(self, row: int) -> np.void:
        entry: np.void = self.index[row]
        if int(entry["shard"]) >= len(self.lock.shards) or int(entry["source"]) >= len(self.lock.sources):
            raise DataError(
                f"{self.root / INDEX_NAME}: damaged in row {row}, it names a shard or a source that the lock has not; "
                "copy the set again or build it anew"
            )
        return entry

    def _open_shard(self, number: int) -> "_OpenFile":
        return _OpenFile(self.root / self.lock.shards[number].name)


class _OpenFile:
    """A file descriptor that is closed when nobody holds it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def open_set(root: str | os.PathLike[str]) -> FrozenSet:
    """Open the frozen set in folder `root`.

    Raises:
        DataError: it is not a frozen set, or its lock or index is damaged.
    """
    return FrozenSet(Path(root))
