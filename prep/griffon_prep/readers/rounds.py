"""`rounds=K`: up to K questions about one image in one sample, so that the image is stored once for all of them.

Each question and its answer are the same as in a sample of their own; only the image is shared.
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.files import write_whole

_MEMBERS, _STARTS = "rounds.bin", "rounds.starts.bin"


def image_key(name: bytes) -> int:
    """Return a 64-bit key for an image's name, by which records are grouped."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def samples_of(image_keys: NDArray[np.uint64], most: int) -> int:
    """Count the samples that records of these images make, with up to `most` rounds each."""
    _, counts = np.unique(image_keys, return_counts=True)
    return int((-(-counts // most)).sum())


def group_records(image_keys: NDArray[np.uint64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group records of the same image, at most `most` per group, in annotation order.

    Args:
        image_keys: the key of each record's image, shape [records].
        most: maximum number of records in a group.

    Returns:
        The record numbers, group after group, shape [records]; and the start of each group in them, with the end, shape
        [groups + 1]. Groups are in the order of their first records.
    """
    most = min(most, len(image_keys))  # numpy has no integers beyond 64 bits
    order = np.argsort(image_keys, kind="stable")
    by_image = image_keys[order]
    run_starts = np.flatnonzero(np.concatenate(([True], by_image[1:] != by_image[:-1])))
    run_lengths = np.diff(np.append(run_starts, len(order)))
    within = np.arange(len(order)) - np.repeat(run_starts, run_lengths)
    starts = np.flatnonzero(within % most == 0)
    lengths = np.diff(np.append(starts, len(order)))
    rank = np.argsort(order[starts], kind="stable")
    starts, lengths = starts[rank], lengths[rank]
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    return order[np.repeat(starts - bounds[:-1], lengths) + np.arange(len(order))], bounds


def write_rounds(work: Path, image_keys: NDArray[np.uint64], most: int) -> int:
    """Group records, write the groups into the source's work folder, and return the number of groups."""
    members, bounds = group_records(image_keys, most)
    write_whole(work / _MEMBERS, members.astype("<u8").tobytes())
    write_whole(work / _STARTS, bounds.astype("<u8").tobytes())
    return len(bounds) - 1


class Rounds:
    """The groups of a source that was scanned with `rounds=`."""

    def __init__(self, work: Path) -> None:
        self._members = (work / _MEMBERS).open("rb")
        self._starts = (work / _STARTS).open("rb")

    def __getitem__(self, group: int) -> list[int]:
        """Return the record numbers of a group, in annotation order."""
        start, stop = np.frombuffer(os.pread(self._starts.fileno(), 16, 8 * group), "<u8").tolist()
        members: list[int] = np.frombuffer(
            os.pread(self._members.fileno(), 8 * (stop - start), 8 * start), "<u8"
        ).tolist()
        return members
