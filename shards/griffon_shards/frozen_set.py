"""Random access to a frozen set, by row or by key. Every read is checked against the index."""

import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.index import INDEX_NAME, open_index
from griffon_shards.lock import Lock, read_lock
from griffon_shards.sample_json import decode_sample
from griffon_shards.shard_bytes import ReadAhead, ShardBytes, shard_bytes
from griffon_shards.storage import Location, ObjectPath, as_location
from griffon_shards.storage.errors import StorageError
from griffon_shards.storage.node_cache import damaged_copy, local_copy
from griffon_shards.storage.transfer import REQUESTS
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import counted
from griffon_shards.tar import crc32, split_sample
from griffon_shards.types import Sample


class FrozenSet:
    """A frozen shard set, open for reading. Rows are samples, in shard order. Threads may share it.

    Of a set in an object store, the index is copied to this machine once, and a sample is one range request.

    Attributes:
        root: the set's folder, or its URL.
        lock: the content of `griffon.lock.json`.
        index_path: the file of the index on this machine.
        index: the rows of `index.npy`, memory-mapped, dtype `INDEX_DTYPE`, shape [samples].
    """

    def __init__(self, root: Location, cache: Path | None = None) -> None:
        self.root = root
        self._cache = cache
        self.lock: Lock = read_lock(root)
        self.index_path = _local_index(root, self.lock, cache)
        self.index: NDArray[np.void] = _open_rows(root, self.index_path)
        samples = sum(shard.samples for shard in self.lock.shards)
        if len(self.index) != samples:
            raise DataError(
                f"{root / INDEX_NAME}: has {counted(len(self.index), 'row')}, expected the "
                f"{counted(samples, 'sample')} of the lock"
            )
        ends = np.cumsum([0, *(source.samples for source in self.lock.sources)])
        self._source_rows = {source.tag: (int(ends[i]), int(ends[i + 1])) for i, source in enumerate(self.lock.sources)}
        self._shards: ShardBytes = shard_bytes(root)

    def __reduce__(self) -> tuple[type["FrozenSet"], tuple[Location, Path | None]]:
        return FrozenSet, (self.root, self._cache)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Sample:
        """The sample in a row.

        Raises:
            IndexError: there is no such row.
            DataError: the shard is missing or damaged; the message names shard and key.
        """
        return self.decoded(row, self.raw(row))

    def decoded(self, row: int, raw: bytes) -> Sample:
        """The sample in a row, from its tar bytes, which are `raw(row)`. Raises DataError as `__getitem__`."""
        key, image, json = split_sample(raw, self.where(row))
        if key != self.key(row):
            raise DataError(f"{self.where(row)}: the shard holds {key} instead; {self.root / INDEX_NAME} is damaged")
        return decode_sample(key, image, json)

    def samples(self, rows: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples in some rows, in order; an object store is read ahead. Raises as `__getitem__`."""
        if not isinstance(self.root, ObjectPath):
            yield from (self[row] for row in rows)
            return
        ahead: deque[Future[Sample]] = deque()
        pool = ThreadPoolExecutor(REQUESTS)
        try:
            for row in rows:
                ahead.append(pool.submit(self.__getitem__, row))
                if len(ahead) > 2 * REQUESTS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def raw(self, row: int) -> bytes:
        """The tar bytes of a row's sample, checked against its CRC-32 in the index. Raises as `__getitem__`."""
        entry = self._entry(row)
        size, offset = int(entry["bytes"]), int(entry["offset"])
        shard = self.lock.shards[int(entry["shard"])]
        if offset + size > shard.bytes:
            raise DataError(f"{self.where(row)}: beyond the end of the shard; {self.root / INDEX_NAME} is damaged")
        try:
            data = self._shards.read(shard.name, offset, size)
            if isinstance(self.root, ObjectPath) and not self.is_intact(row, data):  # perhaps only on its way
                data = self._shards.read(shard.name, offset, size)
        except FileNotFoundError:
            raise DataError(f"{self.where(row)}: the shard is missing; copy the set again or rebuild it") from None
        except StorageError as error:
            raise StorageError(f"sample {self.key(row)}: {error}") from None
        if not self.is_intact(row, data):
            raise DataError(
                f"{self.where(row)}: damaged, its bytes do not match their checksum in the index; "
                f"`griffon-shards verify {self.root}` lists all damage"
            )
        return data

    def is_intact(self, row: int, data: bytes) -> bool:
        """Whether these are the tar bytes of a row's sample, by their size and CRC-32."""
        entry = self._entry(row)
        return len(data) == int(entry["bytes"]) and crc32(data) == int(entry["crc32"])

    def key(self, row: int) -> str:
        """The key of a row: `{tag}-{record_no:09d}`."""
        entry = self._entry(row)
        return f"{self.lock.sources[int(entry['source'])].tag}-{int(entry['record']):09d}"

    def row(self, key: str) -> int:
        """The row of a key.

        Raises:
            DataError: the set has no sample with this key.
        """
        tag, _, record_no = key.rpartition("-")
        start, end = self._source_rows.get(tag, (0, 0))
        matches = (
            np.flatnonzero(self.index["record"][start:end] == int(record_no))
            if record_no.isdecimal() and len(record_no) <= 10
            else np.array([])
        )
        if not matches.size or self.key(start + int(matches[0])) != key:
            raise DataError(
                f"{self.root}: no sample has the key {key!r}; list the keys with `griffon-shards ls {self.root}`"
            )
        return start + int(matches[0])

    def rows_of_source(self, tag: str) -> range:
        """The rows of a source, which are contiguous.

        Raises:
            DataError: the set has no source with this tag.
        """
        if tag not in self._source_rows:
            raise DataError(f"{self.root}: no source {tag!r}; it has {', '.join(self._source_rows)}")
        return range(*self._source_rows[tag])

    def check_shards(self) -> None:
        """Check that every shard exists and has its size. No shard is read.

        Raises:
            DataError: a shard is missing or truncated; the message names it.
        """
        sizes = self._shards.sizes([shard.name for shard in self.lock.shards])
        for shard in self.lock.shards:
            path = self.root / shard.name
            if shard.name not in sizes:
                raise DataError(f"{path}: the shard is missing; copy the set again or rebuild it")
            size_bytes = sizes[shard.name]
            if size_bytes not in (None, shard.bytes):
                raise DataError(
                    f"{path}: has {size_bytes:,} of {shard.bytes:,} bytes; copy the set again or rebuild it"
                )

    def in_order(self) -> "FrozenSet":
        """The same set for one thread that reads rows in their order. A request to an object store covers several."""
        if not isinstance(self.root, ObjectPath):
            return self
        ordered = object.__new__(FrozenSet)
        ordered.__dict__.update(self.__dict__)
        ordered._shards = ReadAhead(self.root, {shard.name: shard.bytes for shard in self.lock.shards})
        return ordered

    def let_index_go(self) -> None:
        """Unmap the pages of the index from this process. Each access to a row maps sixteen of them.

        They stay in the page cache, which all processes of the machine share, and are mapped again on the next access.
        """
        mapped = self.index.base
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def where(self, row: int) -> str:
        """Shard and key of a row, for error messages."""
        return f"{self.root / self.lock.shards[int(self._entry(row)['shard'])].name}, sample {self.key(row)}"

    def _entry(self, row: int) -> np.void:
        entry: np.void = self.index[row]
        if int(entry["shard"]) >= len(self.lock.shards) or int(entry["source"]) >= len(self.lock.sources):
            raise DataError(
                f"{self.root / INDEX_NAME}: row {row} is damaged, it names a shard or a source that is not in the "
                "lock; copy the set again or rebuild it"
            )
        return entry


def _local_index(root: Location, lock: Lock, cache: Path | None) -> Path:
    if not isinstance(root, ObjectPath):
        return root / INDEX_NAME
    try:
        return local_copy(root / INDEX_NAME, lock.index_sha256, cache)
    except FileNotFoundError as error:
        if error.filename != str(root / INDEX_NAME):  # but the cache
            raise
        raise DataError(f"{root / INDEX_NAME}: missing; the set is incomplete, copy it again or rebuild it") from None


def _open_rows(root: Location, index_path: Path) -> NDArray[np.void]:
    try:
        return open_index(index_path)
    except DataError:
        if isinstance(root, ObjectPath):
            raise DataError(damaged_copy(index_path, root / INDEX_NAME)) from None
        raise


def open_set(root: str | os.PathLike[str] | ObjectPath, cache: Path | None = None) -> FrozenSet:
    """Open the frozen set in folder `root`, or at this URL.

    Args:
        root: folder or URL.
        cache: folder for what is fetched from an object store; by default the user's cache.

    Raises:
        SettingsError: the URL is not one of an object store.
        DataError: the folder is not a frozen set, or its lock or index is damaged.
    """
    location = root if isinstance(root, ObjectPath) else as_location(os.fspath(root))
    return FrozenSet(location, cache)
