"""`rounds=K`: up to K questions about one image in one sample, so that the image is stored once for all of them.

Each question and its answer are the same as in a sample of their own; only the image is shared. The rounds of a sample
have different answers.
"""

import hashlib
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.files import write_whole

ANSWER_KEYS = 2
"""Number of answer keys of a record."""

_MEMBERS, _STARTS = "rounds.bin", "rounds.starts.bin"


def image_key(name: bytes) -> int:
    """Return a 64-bit key for an image's name, by which records are grouped."""
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


class RoundKeys:
    """For every record of a source, which records may be rounds of one sample: of one image, and of different answers.

    Two expressions of the same boxes in one conversation would teach to copy the earlier answer instead of looking.

    Attributes:
        images: a key that is equal for records of the same image (and, barring a hash collision, only for these).
        answers: `ANSWER_KEYS` keys, none of which another round of the sample may have in the same place: of VG the
            boxes, twice; of REG the box, and the phrase. Expressions of nothing differ by their phrases.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self.images = array("Q")
        self.answers = array("Q")

    def add(self, image: int, phrase: object, boxes: Sequence[object]) -> None:
        """Add the next record; phrase and boxes are as they stand in the annotation, even if they are invalid."""
        words = f"phrase {phrase.strip().lower() if isinstance(phrase, str) else phrase!r}"
        places = f"boxes {sorted(map(_box_text, boxes))}" if boxes else words
        self.images.append(image)
        self.answers.extend(map(_key, (places, words if self._task == "REG" else places)))

    def __len__(self) -> int:
        return len(self.images)

    def as_arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the image keys, shape [records], and the answer keys, shape [records, ANSWER_KEYS]."""
        answers = np.array(self.answers, np.uint64).reshape(-1, ANSWER_KEYS)
        return np.array(self.images, np.uint64), answers


def _key(text: str) -> int:
    return image_key(text.encode("utf-8", "surrogatepass"))


def _box_text(box: object) -> str:
    """Text that is the same for equal boxes, whether their numbers are written as 10 or as 10.0."""
    if isinstance(box, list | tuple) and all(isinstance(edge, int | float) for edge in box):
        return str([float(edge) for edge in box])
    return repr(box)


def samples_of(keys: RoundKeys, most: int) -> int:
    """Count the samples that records make, with up to `most` rounds each."""
    return len(group_records(keys, most)[1]) - 1


def group_records(keys: RoundKeys, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group records of the same image and of different answers, at most `most` per group, in annotation order.

    Args:
        keys: of each record.
        most: maximum number of records in a group.

    Returns:
        The record numbers, group after group, shape [records]; and the start of each group in them, with the end, shape
        [groups + 1]. Groups are in the order of their first records.
    """
    image_keys, answer_keys = keys.as_arrays()
    most = min(most, len(image_keys))  # numpy has no integers beyond 64 bits
    order = np.argsort(image_keys, kind="stable")
    by_image = image_keys[order]
    first_of_image = np.concatenate(([True], by_image[1:] != by_image[:-1]))[: len(order)]
    image_nos = np.cumsum(first_of_image) - 1
    image_starts = np.append(np.flatnonzero(first_of_image), len(order))
    group_nos = (np.arange(len(order)) - image_starts[image_nos]) // max(most, 1)
    for image_no in _with_repeats(image_nos, answer_keys[order]):
        rows = slice(image_starts[image_no], image_starts[image_no + 1])
        group_nos[rows] = _dealt(answer_keys[order[rows]].tolist(), most)
    by_group = np.lexsort((group_nos, image_nos))
    order, image_nos, group_nos = order[by_group], image_nos[by_group], group_nos[by_group]
    begins = (image_nos[1:] != image_nos[:-1]) | (group_nos[1:] != group_nos[:-1])
    starts = np.flatnonzero(np.concatenate(([True], begins))[: len(order)])
    lengths = np.diff(np.append(starts, len(order)))
    rank = np.argsort(order[starts], kind="stable")
    starts, lengths = starts[rank], lengths[rank]
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    return order[np.repeat(starts - bounds[:-1], lengths) + np.arange(len(order))], bounds


def _with_repeats(image_nos: NDArray[np.int64], answer_keys: NDArray[np.uint64]) -> list[int]:
    """Return the images of which two records have an equal answer key in the same place."""
    found = [np.empty(0, np.int64)]
    for column in answer_keys.T:
        order = np.lexsort((column, image_nos))
        images, answers = image_nos[order], column[order]
        found.append(images[1:][(images[1:] == images[:-1]) & (answers[1:] == answers[:-1])])
    repeated: list[int] = np.unique(np.concatenate(found)).tolist()
    return repeated


def _dealt(answer_keys: list[list[int]], most: int) -> list[int]:
    """Return the group of each record of an image: the first with room behind those that have one of its answers."""
    sizes: list[int] = []
    next_group: dict[tuple[int, int], int] = {}  # by place and answer
    first_open = 0
    groups = []
    for keys in answer_keys:
        placed = list(enumerate(keys))
        group = max(first_open, *(next_group.get(key, 0) for key in placed))
        while group < len(sizes) and sizes[group] == most:
            group += 1
        if group == len(sizes):
            sizes.append(0)
        sizes[group] += 1
        next_group |= dict.fromkeys(placed, group + 1)
        while first_open < len(sizes) and sizes[first_open] == most:
            first_open += 1
        groups.append(group)
    return groups


def write_rounds(work: Path, keys: RoundKeys, most: int) -> int:
    """Group records, write the groups into the source's work folder, and return the number of groups."""
    members, bounds = group_records(keys, most)
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
