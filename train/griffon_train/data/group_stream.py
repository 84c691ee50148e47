"""A group as one endless stream: in each epoch its sources' places, in a keyed shuffle."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from griffon_shards.permutation import permutation_key, permute, unpermute
from griffon_train.data.lengths import Lengths
from griffon_train.data.source_stream import SourceStream


class GroupStream:
    """The stream of a group; see docs/design.md, section 8.

    Attributes:
        name: name of the group.
        sources: the streams of its sources, in order.
    """

    def __init__(self, name: str, sources: Sequence[SourceStream], *, seed: int, set_digests: Sequence[str]) -> None:
        """Make the stream.

        Args:
            name: name of the group.
            sources: at least one.
            seed: seed of every shuffle.
            set_digests: digests of the plan's sets, in order, which key the shuffles together with the seed.
        """
        self.name, self.sources = name, tuple(sources)
        self._seed, self._set_digests = seed, tuple(set_digests)
        self._first_places = lru_cache(64)(self._first_place_of)

    def first_place(self, epoch: int) -> int:
        """Return the position in the stream where an epoch begins."""
        return self._first_places(epoch)

    def _first_place_of(self, epoch: int) -> int:
        return sum(source.first_place(epoch) for source in self.sources)

    def epoch_at(self, place: int) -> int:
        """Return the epoch that a position in the stream belongs to."""
        high = 1
        while self.first_place(high) <= place:
            high *= 2
        return bisect_right(range(high + 1), place, key=self.first_place) - 1

    def sources_at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the index in `sources`, and the position in that source's stream, at ascending positions.

        Both have the shape of `places`. `places_of` is the inverse.
        """
        source_of, place = np.empty_like(places), np.empty_like(places)
        position = 0
        epoch = self.epoch_at(int(places[0]))
        while position < len(places):
            first, end = self.first_place(epoch), self.first_place(epoch + 1)
            stop = int(np.searchsorted(places, end))
            if stop > position:
                drawn = permute(places[position:stop] - first, end - first, self._key(epoch))
                firsts, ends = self._shares(epoch)
                chosen = np.searchsorted(ends, drawn.astype(np.int64), side="right")
                starts = firsts - np.concatenate(([0], ends[:-1]))
                source_of[position:stop] = chosen
                place[position:stop] = drawn.astype(np.int64) + starts[chosen]
            position, epoch = stop, epoch + 1
        return source_of, place

    def places_of(self, epoch: int, source_no: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions in this stream of some positions in the stream of one of its sources.

        Args:
            epoch: the epoch that `places` belong to.
            source_no: index of the source in `sources`.
            places: positions in the source's stream.
        """
        firsts, ends = self._shares(epoch)
        before = int(ends[source_no - 1]) if source_no else 0
        first, end = self.first_place(epoch), self.first_place(epoch + 1)
        shuffled = unpermute(places - firsts[source_no] + before, end - first, self._key(epoch))
        return shuffled.astype(np.int64) + first

    def rows(self, places: NDArray[np.int64], lengths: Lengths) -> tuple[NDArray[np.int64], ...]:
        """Return sets, rows, variants and lengths at ascending positions; each has the shape of `places`."""
        source_of, place = self.sources_at(places)
        sets = np.array([source.set_no for source in self.sources])[source_of]
        rows, variants, row_lengths = np.empty_like(place), np.empty_like(place), np.empty_like(place)
        for source_no, source in enumerate(self.sources):
            mine = np.flatnonzero(source_of == source_no)
            if mine.size:
                rows[mine], variants[mine] = source.rows(place[mine], self._seed)
                row_lengths[mine] = lengths.of(source.set_no, rows[mine], variants[mine])
        return sets, rows, variants, row_lengths

    def _shares(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each source's stream begins in an epoch, and the running total of their places in it."""
        firsts = np.array([source.first_place(epoch) for source in self.sources])
        return firsts, np.cumsum(np.array([source.first_place(epoch + 1) for source in self.sources]) - firsts)

    def _key(self, epoch: int) -> bytes:
        return permutation_key("plan", self._seed, *self._set_digests, "group", self.name, epoch)
