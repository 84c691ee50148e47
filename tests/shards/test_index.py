"""The index and the offsets beside each shard: pinned bytes that numpy reads, refused when a bit is wrong."""

import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, idx_bytes, idx_path, index_header, open_index
from griffon_shards.support.errors import DataError
from griffon_shards.types import TASKS

FIELDS = [
    ("shard", "<u4", 0),
    ("offset", "<u8", 4),
    ("bytes", "<u4", 12),
    ("crc32", "<u4", 16),
    ("record", "<u4", 20),
    ("source", "<u2", 24),
    ("task", "|u1", 26),
    ("has_image", "|u1", 27),
    ("boxes", "<u2", 28),
    ("text_chars", "<u4", 30),
]
ROW = (1, 2, 3, 4, 5, 6, 3, 1, 9, 10)


def write_index(path: Path, rows: int) -> Path:
    path.write_bytes(index_header(rows) + np.array([ROW] * rows, INDEX_DTYPE).tobytes())
    return path


def test_the_rows_are_laid_out_as_the_design_says() -> None:
    assert INDEX_DTYPE.names is not None
    layout = [(name, INDEX_DTYPE[name].str, INDEX_DTYPE.fields[name][1]) for name in INDEX_DTYPE.names]  # type: ignore[index]
    assert layout == FIELDS
    assert INDEX_DTYPE.itemsize == 34


def test_the_header_is_pinned() -> None:
    assert (
        hashlib.sha256(index_header(288)).hexdigest()
        == "992f24b558935aecdef50c96198c9614b82ea11373c1b64a0e4448265faa1f58"
    )


@pytest.mark.parametrize("rows", [0, 1, 3, 288])
def test_numpy_reads_the_file(tmp_path: Path, rows: int) -> None:
    read = np.load(write_index(tmp_path / INDEX_NAME, rows))
    assert read.dtype == INDEX_DTYPE
    assert read.tolist() == [ROW] * rows


def test_the_header_takes_one_block_however_many_rows() -> None:
    assert {len(index_header(rows)) for rows in (0, 1, 10**6, 2**40)} == {512}


@pytest.mark.parametrize("rows", [0, 1, 3, 1000])
def test_an_index_is_opened_with_all_its_rows(tmp_path: Path, rows: int) -> None:
    opened = open_index(write_index(tmp_path / INDEX_NAME, rows))
    assert opened.dtype == INDEX_DTYPE
    assert opened.tolist() == [ROW] * rows
    with pytest.raises(ValueError, match="read-only"):
        opened["shard"] = 0


def test_a_flipped_bit_in_any_byte_of_the_header_is_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path / INDEX_NAME, 20)
    whole = path.read_bytes()
    for offset in range(len(index_header(20))):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=INDEX_NAME):
            open_index(path)


@pytest.mark.parametrize("kept", [0, 5, 100, 511, 512, 513, 512 + 34, -34, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write_index(tmp_path / INDEX_NAME, 20)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=f"{INDEX_NAME}: truncated"):
        open_index(path)


def test_rows_of_another_layout_are_refused(tmp_path: Path) -> None:
    for other in (np.zeros(3), np.zeros(3, INDEX_DTYPE.descr[:-1]), np.zeros((3, 1), INDEX_DTYPE)):
        np.save(tmp_path / INDEX_NAME, other)
        with pytest.raises(DataError, match="not of index format 1"):
            open_index(tmp_path / INDEX_NAME)
    shutil.copy(__file__, tmp_path / INDEX_NAME)
    with pytest.raises(DataError, match="not of index format 1"):
        open_index(tmp_path / INDEX_NAME)


def test_a_missing_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{INDEX_NAME}: missing"):
        open_index(tmp_path / INDEX_NAME)


def test_offsets_are_little_endian_with_the_end_last() -> None:
    assert idx_bytes([0, 1536], 4096) == struct.pack("<3Q", 0, 1536, 4096)
    assert idx_bytes([], 0) == bytes(8)
    assert idx_path(Path("a/DET-000000.tar")) == Path("a/DET-000000.tar.idx")


def test_the_index_of_a_build_says_what_its_samples_are(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    for row, facts in enumerate(shards.index):
        sample = shards[row]
        assert TASKS[facts["task"]] == sample.task
        assert shards.lock.sources[facts["source"]].tag == sample.key.rpartition("-")[0]
        assert int(facts["record"]) == sample.origin.record
        assert bool(facts["has_image"]) == (sample.image is not None)
        assert int(facts["text_chars"]) == sum(len(turn.text) for turn in sample.turns)


def test_the_offsets_of_a_build_are_where_its_samples_begin(frozen_set: Path) -> None:
    shards = open_set(frozen_set)
    for index, entry in enumerate(shards.lock.shards):
        tar = frozen_set / entry.name
        *offsets, end = np.fromfile(idx_path(tar), "<u8").tolist()
        assert offsets == shards.index["offset"][shards.index["shard"] == index].tolist()
        assert end == tar.stat().st_size - 1024
        with tar.open("rb") as file:
            for row, offset in zip(np.flatnonzero(shards.index["shard"] == index), offsets, strict=True):
                file.seek(offset)
                assert file.read(100).rstrip(b"\0").decode().rpartition(".")[0] == shards.key(int(row))
