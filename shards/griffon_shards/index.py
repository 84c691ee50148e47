"""`index.npy` and `SHARD.tar.idx`: where every sample lies, and what training must know of it without opening it."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

INDEX_NAME = "index.npy"
INDEX_DTYPE = np.dtype(
    [
        ("shard", "<u4"),  # place in the lock's list of shards
        ("offset", "<u8"),  # first byte of the sample in its tar
        ("bytes", "<u4"),  # of the whole sample: headers, members, padding
        ("crc32", "<u4"),  # of those bytes
        ("record", "<u4"),  # number in the annotation
        ("source", "<u2"),  # place in the lock's list of sources
        ("task", "u1"),  # place in griffon_shards.types.TASKS
        ("has_image", "u1"),
        ("boxes", "<u2"),  # boxes written, largest over the variants (65535 stands for that many or more)
        ("text_chars", "<u4"),  # of all turns together, largest over the variants
    ]
)


def index_header(rows: int) -> bytes:
    """The `.npy` header (version 1.0) in front of `rows` rows of `INDEX_DTYPE`.

    Source: the NPY format, numpy.lib.format. Written here because the header numpy writes has changed between versions.
    """
    text = f"{{'descr': {INDEX_DTYPE.descr!r}, 'fortran_order': False, 'shape': ({rows},), }}"
    padded = text.ljust(512 - 10 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("ascii")


def open_index(path: Path) -> NDArray[np.void]:
    """The rows of an index, memory-mapped read-only, shape [samples].

    Raises:
        DataError: the file is missing, cut short, or not of this layout.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(index_header(0)))
            rows, surplus = divmod(os.fstat(file.fileno()).st_size - len(head), INDEX_DTYPE.itemsize)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; the set is incomplete, copy it again or build it anew") from None
    if surplus or head != index_header(rows):  # compared whole: numpy reads many a damaged header without complaint
        raise DataError(
            f"{path}: cut short, damaged, or not of index format 1; copy the set again, build it anew, "
            "or read it with the version that wrote it"
        )
    index: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
    return index


def idx_bytes(offsets: Iterable[int], end: int) -> bytes:
    """`SHARD.tar.idx`: little-endian uint64 sample offsets and the end (Megatron-Energon's layout)."""
    return np.array([*offsets, end], "<u8").tobytes()


def write_idx(tar: Path, offsets: Iterable[int], end: int) -> None:
    """Write the `.idx` file beside a shard."""
    write_whole(idx_path(tar), idx_bytes(offsets, end))


def idx_path(tar: Path) -> Path:
    """The offsets file of a shard: `X.tar` has `X.tar.idx`."""
    return tar.with_name(tar.name + ".idx")
