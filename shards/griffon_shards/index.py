"""`index.npy` and `SHARD.tar.idx`: where each sample is, and the facts that training needs without opening it."""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from griffon_shards.storage import ObjectPath
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

Place = TypeVar("Place", Path, ObjectPath)

INDEX_NAME = "index.npy"
INDEX_DTYPE = np.dtype(
    [
        ("shard", "<u4"),  # position in the lock's list of shards
        ("offset", "<u8"),  # first byte of the sample in its tar
        ("bytes", "<u4"),  # size of the sample: headers, members, padding
        ("crc32", "<u4"),  # of those bytes
        ("record", "<u4"),  # record number in the annotation
        ("source", "<u2"),  # position in the lock's list of sources
        ("task", "u1"),  # position in griffon_shards.types.TASKS
        ("has_image", "u1"),
        ("boxes", "<u2"),  # boxes written, maximum over the variants (65535 means that many or more)
        ("text_chars", "<u4"),  # total of all turns, maximum over the variants
    ]
)

_READ_AHEAD_BYTES = 4 << 30
"""Larger indexes are read page by page: they may not fit in memory, and reading ahead fetches 32 pages for a row."""


def index_header(rows: int) -> bytes:
    """The `.npy` header (version 1.0) for `rows` rows of `INDEX_DTYPE`, 512 bytes.

    Source: the NPY format, numpy.lib.format. It is written here because the header that numpy writes has changed
    between versions.
    """
    text = f"{{'descr': {INDEX_DTYPE.descr!r}, 'fortran_order': False, 'shape': ({rows},), }}"
    padded = text.ljust(512 - 10 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("ascii")


def open_index(path: Path) -> NDArray[np.void]:
    """Open the rows of an index, memory-mapped read-only, shape [samples].

    Raises:
        DataError: the file is missing, truncated, or has another layout.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(index_header(0)))
            rows, surplus = divmod(os.fstat(file.fileno()).st_size - len(head), INDEX_DTYPE.itemsize)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; the set is incomplete, copy it again or rebuild it") from None
    if surplus or head != index_header(rows):  # compare all of it: numpy reads many damaged headers silently
        raise DataError(
            f"{path}: truncated, damaged, or not of index format 1; copy the set again or rebuild it, "
            "or read it with the version that wrote it"
        )
    index: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    mapped = index.base
    if isinstance(mapped, mmap.mmap) and len(mapped) > _READ_AHEAD_BYTES and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return index


def idx_bytes(offsets: Iterable[int], end: int) -> bytes:
    """Content of `SHARD.tar.idx`: sample offsets and the end, little-endian uint64 (Megatron-Energon's layout)."""
    return np.array([*offsets, end], "<u8").tobytes()


def write_idx(tar: Path, offsets: Iterable[int], end: int) -> None:
    """Write the `.idx` file beside a shard."""
    write_whole(idx_path(tar), idx_bytes(offsets, end))


def idx_path(tar: Place) -> Place:
    """Path of a shard's offsets file: `X.tar.idx` for `X.tar`."""
    return tar.with_name(tar.name + ".idx")
