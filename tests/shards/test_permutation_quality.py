"""Long orders under single keys, against what a uniform permutation gives; short ones are in `test_permutation`.

Every bound is some five standard deviations of the uniform value; keys are fixed, so a test fails always or never.
"""

from itertools import product
from math import erfc, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from griffon_shards.permutation import MAX_N, permutation_key, permute

SIGMAS = 5
# Around powers of two the network's domain is hardly larger than n, or nearly twice as large.
SIZES = [999, 1024, 1025, 30_000, 65_536, 65_537, 200_003]
SEEDS = [0, 1, 2, 12345]


def key_of(seed: object, *more: object) -> bytes:
    return permutation_key("long", seed, *more)


def order(n: int, seed: object) -> NDArray[np.int64]:
    return permute(np.arange(n), n, key_of(seed)).astype(np.int64)


@pytest.fixture(scope="module", params=list(product(SIZES, SEEDS)), ids=lambda pair: f"n{pair[0]}-seed{pair[1]}")
def order_N(request: pytest.FixtureRequest) -> NDArray[np.int64]:
    n, seed = request.param
    return order(n, seed)


def near(result: float, expected: float, deviation: float) -> bool:
    return abs(result - expected) < SIGMAS * deviation


def uniform(counts: NDArray[np.int64]) -> bool:
    """Chi-square of counts that should be alike."""
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    return near(float(((counts - expected) ** 2 / expected).sum()), freedom, sqrt(2 * freedom))


def test_positions_and_elements_are_independent(order_N: NDArray[np.int64]) -> None:
    """Neither by rank correlation, nor from which thirtieth of all it comes and to which it goes."""
    n = len(order_N)
    assert near(float(np.corrcoef(np.arange(n), order_N)[0, 1]), 0, 1 / sqrt(n - 1))
    parts = 5 if n < 10_000 else 30
    seen = np.bincount((np.arange(n) * parts // n) * parts + order_N * parts // n, minlength=parts * parts)
    expected, freedom = n / parts**2, (parts - 1) ** 2
    assert near(float(((seen - expected) ** 2 / expected).sum()), freedom, sqrt(2 * freedom))


def test_successors_of_elements_are_distributed_as_by_chance(order_N: NDArray[np.int64]) -> None:
    """Steps up are half of all; neighbours stay neighbours, or two places apart, as seldom as by chance."""
    n = len(order_N)
    assert near(float((np.diff(order_N) > 0).sum()), (n - 1) / 2, sqrt((n + 1) / 12))
    for apart in (1, 2, 3, 64, 128):
        together = int((np.abs(order_N[apart:] - order_N[:-apart]) == apart).sum())
        assert together <= 2 + SIGMAS * sqrt(2)  # about Poisson, mean 2
    change = float(np.corrcoef(order_N[1:], order_N[:-1])[0, 1])
    assert near(change, 0, 1 / sqrt(n - 2))


def test_the_longest_cycles_and_their_number_are_as_by_chance(order_N: NDArray[np.int64]) -> None:
    """The number of cycles is ln n on average."""
    n, left, cycles = len(order_N), set(range(len(order_N))), 0
    after = order_N.tolist()
    while left:
        element = left.pop()
        cycles += 1
        while (element := after[element]) in left:
            left.discard(element)
    assert near(cycles, np.log(n) + 0.5772, sqrt(np.log(n)))


@pytest.mark.parametrize("n", [50, 1000, 4096])
def test_fixed_points_are_distributed_as_by_chance(n: int) -> None:
    """Not only their mean is 1: 1/e of all orders have none, and other numbers follow Poisson's law."""
    keys = 1500
    fixed = np.array([int((order(n, seed) == np.arange(n)).sum()) for seed in range(keys)])
    for index, share in enumerate([1, 1, 1 / 2, 1 / 6, 1 / 24]):
        expected = keys * share / np.e
        assert near(float((fixed == index).sum()), expected, sqrt(expected))


@pytest.mark.parametrize("n", [50, 1000, 4096])
def test_neighbours_that_stay_together_are_distributed_as_by_chance(n: int) -> None:
    keys = 1500
    kept = np.array([int((np.diff(order(n, seed)) == 1).sum()) for seed in range(keys)])
    for index, share in enumerate([1, 1, 1 / 2, 1 / 6, 1 / 24]):
        expected = keys * share / np.e
        assert near(float((kept == index).sum()), expected, sqrt(expected) + 2 * expected / n)


def test_seeds_that_are_alike_give_orders_that_are_not() -> None:
    """For neighbouring seeds and passes, equal positions are as rare as by chance, and nothing correlates."""
    n = 5000
    orders_KN = [order(n, seed) for seed in range(60)]
    same = [int((one == other).sum()) for one, other in zip(orders_KN[1:], orders_KN[:-1], strict=True)]
    assert near(float(np.mean(same)), 1, 1 / sqrt(len(same)))
    correlations = [np.corrcoef(one, other)[0, 1] for one, other in zip(orders_KN[1:], orders_KN[:-1], strict=True)]
    assert max(map(abs, correlations)) < SIGMAS / sqrt(n)


@pytest.mark.parametrize("n", [10**6 + 3, 10**9, (1 << 33) + 1, MAX_N - 1, MAX_N])
def test_places_of_a_long_order_spread_over_all_of_it(n: int) -> None:
    """The first and the last elements, and any stretch between: high and low bits, and differences, are uniform."""
    for start in (0, n // 3, n - 20_000):
        actual = permute(np.arange(start, start + 20_000), n, key_of("spread", n)).astype(np.int64)
        assert len(set(actual.tolist())) == 20_000
        assert uniform(np.bincount((actual.astype(object) * 64 // n).astype(np.int64), minlength=64))
        assert uniform(np.bincount(actual % 61, minlength=61))
        steps = np.diff(actual) % n
        assert uniform(np.bincount((steps.astype(object) * 64 // n).astype(np.int64), minlength=64))


@pytest.mark.parametrize("n", [1000, 65_536, 10**9, MAX_N])
def test_one_bit_of_the_place_changes_half_the_bits_of_the_element(n: int) -> None:
    """Places that differ in any one bit give elements as far apart as any two."""
    bits = (n - 1).bit_length()
    whole = 1 << (bits - 1)  # below n, where flipping a lower bit stays inside
    places = permute(np.arange(min(4000, whole)), whole, key_of("places")).astype(np.int64)
    for bit in range(bits - 1):
        key = key_of("bits", bit)
        before, after = (permute(item, n, key).astype(np.int64) for item in (places, places ^ (1 << bit)))
        far = float(np.abs(before - after).mean()) / n
        assert abs(far - 1 / 3) < SIGMAS * sqrt(1 / 18 / len(places)) + 1 / n


def test_the_bounds_would_detect_an_order_that_is_not_shuffled() -> None:
    """The identity, its reverse, a rotation and a rough sort are all told from chance."""
    n = 30_000
    rough = np.argsort(order(n, 0) + 2 * n * (np.arange(n) // 3000))
    for plain in (np.arange(n), np.arange(n)[::-1].copy(), np.roll(np.arange(n), 77), rough):
        with pytest.raises(AssertionError):
            test_positions_and_elements_are_independent(plain)
    assert erfc(SIGMAS / sqrt(2)) < 1e-6
