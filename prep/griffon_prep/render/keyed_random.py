"""Keyed draws: every random choice is a pure function of (seed, tag, record number, variant, purpose).

Random words come from BLAKE2b in counter mode, so a draw does not depend on earlier draws, on a library's generator, or
on the number of workers.
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
_WORDS = struct.Struct("<8Q")


class KeyedRandom:
    """An endless stream of 64-bit words for one purpose, and random choices made from it."""

    __slots__ = ("_block", "_key", "_words")
    _block: int
    _words: list[int]

    def __init__(self, seed: int, tag: str, record_no: int, variant: int, purpose: str) -> None:
        self._key = f"{seed}\0{tag}\0{record_no}\0{variant}\0{purpose}\0".encode()
        self._block = 0
        self._words = []

    def _take(self, count: int) -> list[int]:
        """Return the next `count` words."""
        words = self._words
        while len(words) < count:
            digest = blake2b(self._key + self._block.to_bytes(8, "little"), person=b"griffon-draws").digest()
            words += _WORDS.unpack(digest)
            self._block += 1
        self._words = words[count:]
        return words[:count]

    def below(self, n: int) -> int:
        """Return an integer in [0, n), uniform to within n / 2^64; n must be at least 1."""
        return self._take(1)[0] % n

    def choice(self, items: Sequence[T]) -> T:
        """Return one of the items, each with equal probability."""
        return items[self.below(len(items))]

    def sample(self, n: int, k: int) -> list[int]:
        """Return k distinct members of range(n), in the order of the draw; k must be at most n.

        This is a Fisher-Yates shuffle that stops after k steps; of its array of n, only changed positions are stored.
        """
        moved: dict[int, int] = {}
        drawn = []
        for index, word in enumerate(self._take(k)):
            other = index + word % (n - index)
            drawn.append(moved.get(other, other))
            moved[other] = moved.get(index, index)
        return drawn

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a uniformly random order."""
        drawn = list(items)
        count = len(drawn)
        for index, word in enumerate(self._take(count)):
            other = index + word % (count - index)
            drawn[index], drawn[other] = drawn[other], drawn[index]
        return drawn
