"""A table of images in which others are looked up by each key, in blocks.

Perceptual hashes are looked up by parts of 16 bits. Two hashes that differ in fewer than 2 x 16 of their 256 bits agree
in at least one of the 16 parts up to one bit. Looking up every part with each of its bits flipped therefore finds all
of them (multi-index hashing: Norouzi, Punjani, Fleet, CVPR 2012), and `MOST_BITS` must stay below 32.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from griffon_shards.overlap.examine import HASH_SIDE, WORDS, Keys

MOST_BITS = 30
"""Perceptual hashes that differ in at most this many of their 256 bits are of the same image."""

KEYS = ("identity", "sha256", "perceptual")
"""The keys, in the order of the columns of `Matches.by`."""

_PARTS = HASH_SIDE * HASH_SIDE // 16
_VALUES = 1 << 16
_PROBES = np.array([0, *(1 << bit for bit in range(16))], np.uint16)
_CANDIDATES_AT_ONCE = 1 << 20
_ARRAYS = ("sources", "identities", "identity_order", "sha256s", "sha256_order", "hashes", "starts", "part_order")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Pairs of an image that was looked up and an image of the table.

    Attributes:
        queries: place of the first among those looked up; shape [pairs].
        images: number of the second in the table; shape [pairs].
        by: by which of `KEYS` they are the same; shape [pairs, 3], bool.
    """

    queries: NDArray[np.int64]
    images: NDArray[np.int64]
    by: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Keys of images, sorted for looking up. About 160 bytes an image.

    Attributes:
        sources: shape [images], uint16.
        identities: 64-bit hashes of identities, ascending, those without one first as zeros; shape [images].
        identity_order: the image of each; shape [images], int32.
        sha256s: first halves of SHA-256, as two big-endian numbers, ascending; shape [images, 2], uint64.
        sha256_order: the image of each; shape [images], int32.
        hashes: perceptual hashes of each image, zeros for none; shape [images, hashes of an image, WORDS], uint64.
        starts: of every part of a hash and every value, where its hashes begin in `part_order`; shape [parts, 65537].
        part_order: rows of all hashes, sorted by the value of a part; shape [parts, hashes that are not zeros], int32.
    """

    sources: NDArray[np.uint16]
    identities: NDArray[np.uint64]
    identity_order: NDArray[np.int32]
    sha256s: NDArray[np.uint64]
    sha256_order: NDArray[np.int32]
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int32]
    part_order: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.sources)

    def save(self, folder: Path) -> None:
        """Write the table, from which several processes can read it."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "Table":
        """Open a table that was written, memory-mapped."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS})

    def look_up(
        self, identities: NDArray[np.uint64], sha256s: NDArray[np.uint64], hashes: NDArray[np.uint64]
    ) -> Matches:
        """Find the images of the table that are the same as some others, by any key.

        Args:
            identities: as `identity_numbers` returns them; shape [queries].
            sha256s: as `sha256_numbers` returns them; shape [queries, 2].
            hashes: perceptual hashes, zeros for none; shape [queries, hashes of an image, WORDS].

        Returns:
            Every pair once, sorted by query and image.
        """
        pairs = [self._by_identity(identities), self._by_sha256(sha256s), self._by_hash(hashes)]
        codes = [queries * len(self) + images for queries, images in pairs]
        unique = np.unique(np.concatenate(codes))
        by = np.stack([np.isin(unique, found) for found in codes], axis=1)
        return Matches(queries=unique // max(1, len(self)), images=unique % max(1, len(self)), by=by)

    def _by_identity(self, identities: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first = np.searchsorted(self.identities, identities, "left")
        end = np.where(identities == 0, first, np.searchsorted(self.identities, identities, "right"))
        queries, places = _expanded(first, end)
        return queries, self.identity_order[places].astype(np.int64)

    def _by_sha256(self, sha256s: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        high = self.sha256s[:, 0]
        first = np.searchsorted(high, sha256s[:, 0], "left")
        end = np.where(sha256s.any(axis=1), np.searchsorted(high, sha256s[:, 0], "right"), first)
        queries, places = _expanded(first, end)
        same = self.sha256s[places, 1] == sha256s[queries, 1]
        return queries[same], self.sha256_order[places[same]].astype(np.int64)

    def _by_hash(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        (of_query, of_image), own = (hashes.shape[1], self.hashes.shape[1]), self.hashes.reshape(-1, WORDS)
        hashes = hashes.reshape(-1, WORDS)
        hashed = np.flatnonzero(hashes.any(axis=1))
        found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        if self.part_order.shape[1] and hashed.size:
            parts = _parts(hashes[hashed])
            for part in range(_PARTS):
                values = parts[:, part, None] ^ _PROBES
                starts = self.starts[part]
                first, end = starts[values].ravel(), starts[values.astype(np.int64) + 1].ravel()
                for probes, places in _in_pieces(first, end):
                    rows, own_rows = hashed[probes // len(_PROBES)], self.part_order[part][places]
                    near = _near(hashes, rows, own, own_rows)
                    found.append((rows[near] // of_query, own_rows[near].astype(np.int64) // of_image))
        queries, images = (np.concatenate(column) for column in zip(*found, strict=True))
        return queries, images


def make_table(
    sources: NDArray[np.uint16],
    identities: NDArray[np.uint64],
    sha256s: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
) -> Table:
    """Sort the keys of images, which are numbered as they stand in the arrays; shapes as in `Table.look_up`."""
    identity_order = np.argsort(identities, kind="stable").astype(np.int32)
    sha256_order = np.lexsort((sha256s[:, 1], sha256s[:, 0])).astype(np.int32)
    rows = hashes.reshape(-1, WORDS)
    hashed = np.flatnonzero(rows.any(axis=1)).astype(np.int32)
    parts = _parts(rows[hashed])
    starts = np.zeros((_PARTS, _VALUES + 1), np.int32)
    part_order = np.zeros((_PARTS, len(hashed)), np.int32)
    for part in range(_PARTS):
        values = parts[:, part]
        part_order[part] = hashed[np.argsort(values, kind="stable")]
        np.cumsum(np.bincount(values, minlength=_VALUES), out=starts[part, 1:])
    return Table(
        sources=sources,
        identities=identities[identity_order],
        identity_order=identity_order,
        sha256s=sha256s[sha256_order],
        sha256_order=sha256_order,
        hashes=hashes,
        starts=starts,
        part_order=part_order,
    )


def identity_numbers(identities: Sequence[str]) -> NDArray[np.uint64]:
    """64-bit hashes of identities, 0 for an empty one; shape [images]."""
    return np.array(
        [
            int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") if identity else 0
            for identity in identities
        ],
        np.uint64,
    )


def sha256_numbers(sha256s: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first halves of SHA-256s as two numbers each.

    Args:
        sha256s: shape [images, 32].

    Returns:
        Shape [images, 2].
    """
    return np.ascontiguousarray(sha256s[:, :16]).view(">u8").astype(np.uint64)


def numbers_of(keys: Keys) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """The keys of images as `Table.look_up` takes them."""
    return identity_numbers(keys.identities), sha256_numbers(keys.sha256s), keys.hashes


def _parts(hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """The parts of 16 bits of hashes; shape [hashes, parts]."""
    return np.ascontiguousarray(hashes, "<u8").view("<u2").reshape(-1, _PARTS)


def _near(
    a: NDArray[np.uint64], a_rows: NDArray[np.int64], b: NDArray[np.uint64], b_rows: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Which pairs of rows differ in at most `MOST_BITS` bits. Half of a hash rules out almost all others."""
    near = np.arange(len(a_rows))
    bits = np.zeros(len(a_rows), np.uint16)
    for word in range(WORDS):
        bits = bits + np.bitwise_count(a[a_rows[near], word] ^ b[b_rows[near], word])
        kept = bits <= MOST_BITS
        near, bits = near[kept], bits[kept]
    return near


def _in_pieces(
    first: NDArray[np.integer], end: NDArray[np.integer]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """`_expanded` for some ranges at a time, so that even hashes that many images share take little memory."""
    totals = np.cumsum(end - first, dtype=np.int64)
    start = 0
    while start < len(first):
        before = int(totals[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, before + _CANDIDATES_AT_ONCE, "right")))
        ranges, places = _expanded(first[start:stop], end[start:stop])
        if ranges.size:
            yield ranges + start, places
        start = stop


def _expanded(first: NDArray[np.integer], end: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every member of some ranges: the number of its range, and itself."""
    lengths = (end - first).astype(np.int64)
    ranges = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return ranges, np.arange(len(ranges)) + (first.astype(np.int64) - before)[ranges]
