"""Images that several samples share, by their fingerprints.

Grouping sorts all fingerprints at once. At its peak it takes about 85 bytes for each sample with an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from griffon_shards.stats.counts import FINGERPRINT_BYTES, SourceCounts

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
        records: record number of each sample; shape [images], uint32. Within a source of a group it ascends.
        starts: whether a sample is the first of its group; shape [images].
    """

    def __init__(self, by_tag: Sequence[tuple[str, SourceCounts]]) -> None:
        self.tags = [tag for tag, _ in by_tag]
        counts = [source for _, source in by_tag]
        halves = np.frombuffer(b"".join(source.image_fingerprints for source in counts), "<u8").reshape(-1, 2)
        assert halves.itemsize * halves.shape[1] == FINGERPRINT_BYTES
        lengths = [len(source.image_records) for source in counts]
        sources = np.repeat(np.arange(len(counts), dtype=np.uint16), lengths)
        records = np.concatenate([np.zeros(0, np.uint32), *(np.array(s.image_records, np.uint32) for s in counts)])
        order = np.lexsort((records, sources, halves[:, 1], halves[:, 0]))
        self.sources: NDArray[np.uint16] = sources[order]
        self.records: NDArray[np.uint32] = records[order]
        halves = halves[order]
        self.starts: NDArray[np.bool_] = np.ones(len(order), bool)
        self.starts[1:] = (halves[1:] != halves[:-1]).any(axis=1)
        # Every image once for each of its sources, by the image's number, from 0 on.
        new = self.starts.copy()
        new[1:] |= self.sources[1:] != self.sources[:-1]
        self._image: NDArray[np.int64] = np.cumsum(self.starts)[new] - 1
        self._source: NDArray[np.uint16] = self.sources[new]

    def distinct_by_source(self) -> list[int]:
        """The number of different images of each source."""
        return [int(images) for images in np.bincount(self._source, minlength=len(self.tags))]

    def distinct(self, sources: Sequence[int]) -> int:
        """The number of different images in some sources, which are given by their places in `tags`."""
        chosen = np.zeros(len(self.tags), bool)
        chosen[list(sources)] = True
        images = self._image[chosen[self._source]]
        return int(np.count_nonzero(np.diff(images))) + bool(images.size)

    def most_repeated(self) -> tuple[RepeatedImage, ...]:
        """The images that most samples have, at least two each; the first in the set's order among equals."""
        firsts = np.flatnonzero(self.starts)
        sizes = np.diff(firsts, append=len(self.starts))
        repeated = sizes > 1
        firsts, sizes = firsts[repeated], sizes[repeated]
        order = np.lexsort((self.records[firsts], self.sources[firsts], -sizes))[:_MOST_REPEATED]
        return tuple(
            RepeatedImage(
                first_key=f"{self.tags[int(self.sources[first])]}-{int(self.records[first]):09d}", samples=int(size)
            )
            for first, size in zip(firsts[order], sizes[order], strict=True)
        )

    def shared(self) -> tuple[SharedImages, ...]:
        """The pairs of sources with images in common, those with most first."""
        number = len(self.tags)
        together = np.zeros(number * number, np.int64)
        in_several = np.bincount(self._image)[self._image] > 1
        images, sources = self._image[in_several], self._source[in_several].astype(np.int64)
        for distance in range(1, number):
            same = images[distance:] == images[:-distance]
            if not same.any():
                break
            both = sources[:-distance][same] * number + sources[distance:][same]
            together += np.bincount(both, minlength=number * number)
        pairs = np.flatnonzero(together)
        order = pairs[np.argsort(-together[pairs], kind="stable")]
        return tuple(
            SharedImages(sources=(self.tags[code // number], self.tags[code % number]), images=int(together[code]))
            for code in order.tolist()
        )
