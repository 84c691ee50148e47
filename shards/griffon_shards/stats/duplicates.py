"""Images that several samples share: the same bytes, by the first 16 bytes of their SHA-256.

Grouping sorts all digests at once. At its peak it takes about 80 bytes for each sample with an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from griffon_shards.stats.counts import DIGEST_BYTES, SourceCounts

_MOST_REPEATED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedImage:
    """An image that several samples have: the first of them in the set's order of sources, and their number."""

    first_key: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedImages:
    """The number of different images that two sources have in common."""

    sources: tuple[str, str]
    images: int


class ImageGroups:
    """The samples with an image, sorted so that those with the same image are adjacent.

    Attributes:
        tags: the tags of all sources.
        sources: place in `tags` of each sample; shape [images], uint16. Within a group it ascends.
        records: record number of each sample; shape [images], uint32.
        groups: number of each sample's image, ascending from 0; shape [images], int64.
    """

    def __init__(self, by_tag: Sequence[tuple[str, SourceCounts]]) -> None:
        self.tags = [tag for tag, _ in by_tag]
        counts = [source for _, source in by_tag]
        halves = np.frombuffer(b"".join(source.image_digests for source in counts), "<u8").reshape(-1, 2)
        assert halves.itemsize * halves.shape[1] == DIGEST_BYTES
        lengths = [len(source.image_records) for source in counts]
        sources = np.repeat(np.arange(len(counts), dtype=np.uint16), lengths)
        records = np.concatenate([np.zeros(0, np.uint32), *(np.array(s.image_records, np.uint32) for s in counts)])
        order = np.lexsort((records, sources, halves[:, 1], halves[:, 0]))
        self.sources: NDArray[np.uint16] = sources[order]
        self.records: NDArray[np.uint32] = records[order]
        halves = halves[order]
        self._starts: NDArray[np.bool_] = np.ones(len(order), bool)
        self._starts[1:] = (halves[1:] != halves[:-1]).any(axis=1)
        self.groups: NDArray[np.int64] = np.cumsum(self._starts) - 1

    def distinct(self, labels: Sequence[int]) -> list[int]:
        """The number of different images under each label; `labels` has a label, from 0 on, for each source."""
        number = max(labels, default=-1) + 1
        labelled = np.array(labels, np.int64)[self.sources] if number else np.zeros(0, np.int64)
        pairs = np.unique(self.groups * max(number, 1) + labelled)
        return np.bincount(pairs % max(number, 1), minlength=number)[:number].tolist()

    def most_repeated(self) -> tuple[RepeatedImage, ...]:
        """The images that most samples have, at least two each; the first in the set's order among equals."""
        sizes = np.bincount(self.groups)
        firsts = np.flatnonzero(self._starts)
        repeated = np.flatnonzero(sizes > 1)
        firsts = firsts[repeated]
        order = np.lexsort((self.records[firsts], self.sources[firsts], -sizes[repeated]))[:_MOST_REPEATED]
        return tuple(
            RepeatedImage(
                first_key=f"{self.tags[int(self.sources[first])]}-{int(self.records[first]):09d}", samples=int(size)
            )
            for first, size in zip(firsts[order], sizes[repeated][order], strict=True)
        )

    def shared(self) -> tuple[SharedImages, ...]:
        """The pairs of sources with images in common, those with most first."""
        number = max(len(self.tags), 1)
        pairs = np.unique(self.groups * number + self.sources)  # each image once for each of its sources
        groups, sources = pairs // number, pairs % number
        together = np.zeros(number * number, np.int64)
        for distance in range(1, number):
            same = groups[distance:] == groups[:-distance]
            if not same.any():
                break
            both = sources[:-distance][same] * number + sources[distance:][same]
            together += np.bincount(both, minlength=number * number)
        found = np.flatnonzero(together)
        order = found[np.argsort(-together[found], kind="stable")]
        return tuple(
            SharedImages(sources=(self.tags[code // number], self.tags[code % number]), images=int(together[code]))
            for code in order.tolist()
        )
