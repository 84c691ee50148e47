"""Keyed draws: every random choice is a pure function of (seed, tag, record number, variant, purpose).

Words come from BLAKE2b in counter mode, so a draw depends on nothing that ran before it, on no library's generator and
on no worker.
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
_WORDS = struct.Struct("<8Q")


class KeyedRandom:
    """An endless row of 64-bit words for one purpose, and choices made of them."""

    __slots__ = ("_block", "_key", "_words")
    _block: int
    _words: list[int]

    def __init__(self, seed: int, tag: str, record_no: int, variant: int, purpose: str) -> None:
        self._key = f"{seed}\0{tag}\0{record_no}\0{variant}\0{purpose}\0".encode()
        self._block = 0
        self._words = []

    def _take(self, count: int) -> list[int]:
        """The next `count` words."""
        words = self._words
        while len(words) < count:
            digest = blake2b(self._key + self._block.to_bytes(8, "little"), person=b"griffon-draws").digest()
            words += _WORDS.unpack(digest)
            self._block += 1
        self._words = words[count:]
        return words[:count]

    def below(self, n: int) -> int:
        """An integer in [0, n), uniform to within n / 2^64; n is at least 1."""
        return self._take(1)[0] % n

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, each equally likely."""
        return items[self.below(len(items))]

    def sample(self, n: int, k: int) -> list[int]:
        """K distinct members of range(n), in the order they were drawn; k is at most n.

        A Fisher-Yates shuffle stopped after k steps, whose array of n is kept as the few places that changed.
        """
        moved: dict[int, int] = {}
        drawn = []
        for place, word in enumerate(self._take(k)):
            other = place + word % (n - place)
            drawn.append(moved.get(other, other))
            moved[other] = moved.get(place, place)
        return drawn

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in a uniform random order."""
        drawn = list(items)
        left = len(drawn)
        for place, word in enumerate(self._take(left)):
            other = place + word % (left - place)
            drawn[place], drawn[other] = drawn[other], drawn[place]
        return drawn
