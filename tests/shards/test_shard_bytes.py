"""Reading shards of an object store in order: few requests, and the same bytes."""

import os
import random
from pathlib import Path

import pytest

from griffon_shards.shard_bytes import ReadAhead
from griffon_shards.support.errors import DataError

from .storage.folder_objects import FolderObject, reads_of

SAMPLE_BYTES = 20_000
DATA = os.urandom(1200 * SAMPLE_BYTES)


@pytest.fixture
def bucket(tmp_path: Path) -> FolderObject:
    folder = tmp_path / "bucket"
    folder.mkdir()
    (folder / "a.tar").write_bytes(DATA)
    (folder / "b.tar").write_bytes(DATA[::-1])
    return FolderObject("s3://bucket", folder)


@pytest.fixture
def shards(bucket: FolderObject) -> ReadAhead:
    return ReadAhead(bucket, {"a.tar": len(DATA), "b.tar": len(DATA)})


def test_reads_in_order_take_few_requests(bucket: FolderObject, shards: ReadAhead) -> None:
    for data, name in ((DATA, "a.tar"), (DATA[::-1], "b.tar")):
        for start in range(0, len(data), SAMPLE_BYTES):
            assert shards.read(name, start, SAMPLE_BYTES) == data[start : start + SAMPLE_BYTES]
    sizes = [int(read.split()[2]) for read in reads_of(bucket.folder)]
    assert len(sizes) < 20
    assert sum(sizes) == pytest.approx(2 * len(DATA), rel=0.01)


def test_reads_in_any_order_get_the_right_bytes(bucket: FolderObject, shards: ReadAhead) -> None:
    rng = random.Random(0)
    for _ in range(200):
        name, data = rng.choice([("a.tar", DATA), ("b.tar", DATA[::-1])])
        start, size = rng.randrange(len(data)), rng.randrange(1, 600_000)
        size = min(size, len(data) - start)
        assert shards.read(name, start, size) == data[start : start + size]
    assert max(int(read.split()[2]) for read in reads_of(bucket.folder)) < 2 << 20  # jumps read little beyond


def test_what_lies_before_a_cut_is_read(bucket: FolderObject) -> None:
    class Cut(FolderObject):
        def __truediv__(self, name: str) -> "Cut":
            return Cut(f"{self}/{name}", self.folder)

        def read_range(self, start: int, size: int) -> bytes:
            data = super().read_range(start, size)
            if len(data) != size:
                raise DataError(f"{self}: truncated")
            return data

    (bucket.folder / "a.tar").write_bytes(DATA[: 5 * SAMPLE_BYTES + 1])
    shards = ReadAhead(Cut("s3://bucket", bucket.folder), {"a.tar": len(DATA)})
    for start in range(0, 5 * SAMPLE_BYTES, SAMPLE_BYTES):
        assert shards.read("a.tar", start, SAMPLE_BYTES) == DATA[start : start + SAMPLE_BYTES]
    with pytest.raises(DataError, match="truncated"):
        shards.read("a.tar", 5 * SAMPLE_BYTES, SAMPLE_BYTES)
