"""A keyed bijection on [0, n): shuffled order with random access, the same on every machine and version.

An alternating Feistel network over the smallest power of two that holds n, with cycle-walking (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Library shuffles change between versions; this one is ours.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_N = 1 << 40
_ROUNDS = 8
# A network over fewer than 2^6 values has too few distinct round outputs; walk a larger domain instead.
_MIN_BITS = 6
# Odd multipliers with good avalanche, from Stafford's variant 13 of the MurmurHash3 finaliser.
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_CHUNK = 1 << 15  # the working arrays of a chunk stay in the second-level cache


def permutation_key(*parts: object) -> bytes:
    """A permutation key: 32 bytes derived from the ordered parts, each as text."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=32, person=b"griffon-permute").digest()


def permute(places: NDArray[np.integer], n: int, key: bytes) -> NDArray[np.uint64]:
    """Map places in a shuffled order to the elements at these places.

    Args:
        places: integers in [0, n), shape [P]. Any P: the cost is linear in P.
        n: size of the domain, 1 to 2^40.
        key: from `permutation_key`.

    Returns:
        Elements in [0, n), shape [P]. Over all n places every element occurs exactly once.

    Raises:
        ValueError: n is out of range, or a place is not in [0, n).
    """
    return _walk(places, n, key, _network)


def unpermute(elements: NDArray[np.integer], n: int, key: bytes) -> NDArray[np.uint64]:
    """Map elements to their places in a shuffled order: the inverse of `permute`, with its arguments and errors."""
    return _walk(elements, n, key, _inverse_network)


_Network = Callable[[NDArray[np.uint64], int, NDArray[np.uint64]], NDArray[np.uint64]]


def _walk(values: NDArray[np.integer], n: int, key: bytes, network: _Network) -> NDArray[np.uint64]:
    if not 1 <= n <= MAX_N:
        raise ValueError(f"a permutation is over 1 to 2^40 elements, got n={n}")
    if values.size and (int(values.min()) < 0 or int(values.max()) >= n):
        raise ValueError(f"places must lie in [0, {n}), got {int(values.min())} to {int(values.max())}")
    words = np.frombuffer(hashlib.blake2b(key, digest_size=8 * _ROUNDS, person=b"griffon-rounds").digest(), "<u8")
    bits = max(_MIN_BITS, (n - 1).bit_length())
    result = values.astype(np.uint64)
    if n == 1:  # nothing to shuffle, and a long walk
        return result
    for start in range(0, result.size, _CHUNK):
        chunk = network(result[start : start + _CHUNK], bits, words)
        outside = np.flatnonzero(chunk >= n)
        while outside.size:  # walk the cycle until it comes back into [0, n); it does, because it began there
            chunk[outside] = network(chunk[outside], bits, words)
            outside = outside[chunk[outside] >= n]
        result[start : start + _CHUNK] = chunk
    return result


def _network(values: NDArray[np.uint64], bits: int, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One pass of the Feistel network over [0, 2^bits)."""
    return _rounds(values, bits, [(number % 2, word) for number, word in enumerate(words)])


def _inverse_network(values: NDArray[np.uint64], bits: int, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The inverse of `_network`: a round is its own inverse, so the same rounds in reverse."""
    return _rounds(values, bits, [(number % 2, word) for number, word in enumerate(words)][::-1])


def _rounds(values: NDArray[np.uint64], bits: int, rounds: Sequence[tuple[int, np.uint64]]) -> NDArray[np.uint64]:
    low_bits = bits // 2
    widths = (bits - low_bits, low_bits)
    halves = [values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1)]
    for changed, word in rounds:
        mixed = halves[1 - changed] + word
        mixed ^= mixed >> np.uint64(30)
        mixed *= _MIX_1
        mixed ^= mixed >> np.uint64(27)
        mixed *= _MIX_2
        halves[changed] ^= mixed >> np.uint64(64 - widths[changed])
    return (halves[0] << np.uint64(low_bits)) | halves[1]
