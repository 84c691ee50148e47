"""Looking up is exact: compared with all pairs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from griffon_shards.overlap.table import MOST_BITS, identity_numbers, make_table


def flipped(random: np.random.Generator, hashes: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    mask = np.zeros((len(hashes), 256), bool)
    for row in mask:
        row[random.choice(256, bits, replace=False)] = True
    flips: NDArray[np.uint64] = np.packbits(mask, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    return hashes ^ flips


@pytest.mark.parametrize("spread", [1 << 63, 4], ids=["random", "many alike"])
def test_hashes_within_the_threshold_are_found_and_no_others(spread: int) -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(1, spread, (300, 4), dtype=np.uint64)
    hashes[7] = 0  # an image without a hash
    near = [flipped(random, hashes[:60], bits) for bits in (0, 1, 15, 16, 29, MOST_BITS, MOST_BITS + 1, 40, 80)]
    queries = np.concatenate([*near, np.zeros((1, 4), np.uint64)])
    none = np.zeros(300, np.uint64)
    images = make_table(np.zeros(300, np.uint16), none, np.zeros((300, 2), np.uint64), hashes[:, None])
    no_names, no_bytes = np.zeros(len(queries), np.uint64), np.zeros((len(queries), 2), np.uint64)
    matches = images.look_up(no_names, no_bytes, queries[:, None])
    distance = np.bitwise_count(queries[:, None] ^ hashes[None]).sum(axis=2)
    distance[:, 7] = distance[~queries.any(axis=1)] = 256
    expected = np.argwhere(distance <= MOST_BITS)
    assert len(expected) >= 59 * 6
    assert (np.stack([matches.queries, matches.images], axis=1) == expected).all()
    assert (matches.by == [False, False, True]).all()


def test_identities_and_bytes_are_exact_and_empty_ones_equal_nothing() -> None:
    identities = identity_numbers(["coco:1", "", "coco:2", "", "coco:1"])
    sha256s = np.array([[5, 1], [5, 2], [0, 0], [0, 0], [5, 2]], np.uint64)
    images = make_table(np.zeros(5, np.uint16), identities, sha256s, np.zeros((5, 1, 4), np.uint64))
    queries = identity_numbers(["coco:1", "", "coco:3", "coco:2"])
    bytes_of = np.array([[5, 2], [0, 0], [5, 3], [5, 1]], np.uint64)
    matches = images.look_up(queries, bytes_of, np.zeros((4, 1, 4), np.uint64))
    pairs = zip(matches.queries.tolist(), matches.images.tolist(), matches.by.tolist(), strict=True)
    assert list(pairs) == [
        (0, 0, [True, False, False]),
        (0, 1, [False, True, False]),
        (0, 4, [True, True, False]),
        (3, 0, [False, True, False]),
        (3, 2, [True, False, False]),
    ]


@pytest.mark.parametrize("bit", range(16))
@pytest.mark.parametrize("near", range(0, 16, 5))
def test_the_bits_may_be_anywhere(bit: int, near: int) -> None:
    """As unevenly as 30 bits can be: two bits in all parts but two, which differ in one and the same bit."""
    flips = np.full(16, 3 << (bit + 1) % 15, np.uint16)
    flips[[near, (near + 1) % 16]] = 1 << bit
    original = np.random.default_rng(bit).integers(1, 1 << 63, (1, 4), dtype=np.uint64)
    copy = original ^ flips.view("<u8").astype(np.uint64)
    assert np.bitwise_count(copy ^ original).sum() == MOST_BITS
    none, no_bytes = np.zeros(1, np.uint64), np.zeros((1, 2), np.uint64)
    images = make_table(np.zeros(1, np.uint16), none, no_bytes, original[:, None])
    assert images.look_up(none, no_bytes, copy[:, None]).images.tolist() == [0]


def test_any_hash_of_an_image_finds_it_once() -> None:
    """In a table of two hashes an image, the first image has one, the second two, and the third none."""
    random = np.random.default_rng(0)
    hashes = random.integers(1, 1 << 63, (3, 2, 4), dtype=np.uint64)
    hashes[0, 1] = hashes[2] = 0
    none, no_bytes = np.zeros(3, np.uint64), np.zeros((3, 2), np.uint64)
    images = make_table(np.zeros(3, np.uint16), none, no_bytes, hashes)
    queries = np.stack([hashes[1], hashes[1, ::-1], [hashes[2, 0], hashes[0, 0]]])
    matches = images.look_up(none, no_bytes, queries)
    assert list(zip(matches.queries.tolist(), matches.images.tolist(), strict=True)) == [(0, 1), (1, 1), (2, 0)]
