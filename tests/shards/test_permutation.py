"""The keyed permutation: pinned order, every element once, and no order likelier than another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from griffon_shards.permutation import MAX_N, permutation_key, permute, unpermute

WHOLE = [
    (1, ("records", 0, "DET"), [0]),
    (2, ("records", 0, "DET"), [0, 1]),
    (2, ("records", 1, "DET"), [1, 0]),
    (5, ("records", 0, "DET"), [0, 3, 2, 1, 4]),
    (5, ("records", 1, "DET"), [2, 3, 1, 0, 4]),
    (20, ("records", 0, "DET"), [0, 9, 2, 16, 5, 18, 14, 11, 12, 3, 7, 6, 10, 8, 17, 13, 19, 4, 15, 1]),
    (20, ("records", 0, "VG"), [0, 17, 15, 13, 10, 11, 19, 16, 18, 2, 3, 9, 7, 6, 8, 14, 4, 5, 12, 1]),
]
IN_PARTS = [
    (64, ("epoch", 7), [0, 1, 2, 3, 18, 19], [32, 6, 28, 22, 19, 43]),
    (65, ("epoch", 7), [0, 1, 2, 3, 18, 19], [53, 14, 1, 7, 12, 24]),
    (1000, ("records", 0, "DET"), [0, 1, 2, 500, 998, 999], [826, 746, 382, 620, 590, 185]),
    (32768, ("records", 0, "DET"), [0, 1, 2, 16384, 32766, 32767], [9483, 27033, 17296, 18739, 31781, 4343]),
    (32769, ("records", 0, "DET"), [0, 1, 2, 16384, 32767, 32768], [9258, 15361, 28340, 22592, 3878, 6599]),
    (100_000, ("records", 0, "DET"), [0, 1, 2, 50_000, 99_998, 99_999], [65309, 18521, 28756, 94676, 25919, 7520]),
    (
        10**9,
        ("records", 0, "DET"),
        [0, 1, 2, 500_000_000, 999_999_998, 999_999_999],
        [436405565, 716050381, 740469410, 696948105, 558796172, 871812100],
    ),
    (
        MAX_N,
        ("records", 0, "DET"),
        [0, 1, 2, 1 << 39, MAX_N - 2, MAX_N - 1],
        [390413360846, 848852500196, 720546980008, 222092865741, 251946609908, 355339125245],
    ),
]
# n and how many keys: small n walk longer, and need fewer keys.
SAMPLED = [(5, 800), (20, 2500), (64, 4000), (1000, 4000)]


def order(n: int, key: bytes) -> NDArray[np.uint64]:
    return permute(np.arange(n), n, key)


@pytest.fixture(scope="module", params=SAMPLED, ids=lambda sampled: f"n{sampled[0]}")
def orders_KN(request: pytest.FixtureRequest) -> NDArray[np.int64]:
    """The orders of n elements under many fixed keys."""
    n, keys = request.param
    return np.stack([order(n, permutation_key("quality", key)) for key in range(keys)]).astype(np.int64)


def test_the_key_is_pinned() -> None:
    expected = "d0c0f26f73de7577fd52f619f025b786f3e2b08fff777e307b94657f4606466e"
    assert permutation_key("records", 0, "DET").hex() == expected


def test_the_key_depends_on_every_part_and_where_it_ends() -> None:
    parts = [("records", 0, "DET"), ("records", 1, "DET"), ("records", 0, "VG"), ("recor", "ds", 0, "DET"), ("DET", 0)]
    assert len({permutation_key(*part) for part in parts}) == len(parts)


@pytest.mark.parametrize(("n", "parts", "expected"), WHOLE)
def test_whole_orders_are_pinned(n: int, parts: tuple[object, ...], expected: list[int]) -> None:
    assert order(n, permutation_key(*parts)).tolist() == expected


@pytest.mark.parametrize(("n", "parts", "places", "expected"), IN_PARTS)
def test_places_of_long_orders_are_pinned(
    n: int, parts: tuple[object, ...], places: list[int], expected: list[int]
) -> None:
    assert permute(np.array(places), n, permutation_key(*parts)).tolist() == expected


@pytest.mark.parametrize("n", [*range(1, 71), 127, 128, 129, 1000, 32767, 32768, 32769, 65537, 300_000])
def test_every_element_comes_exactly_once(n: int) -> None:
    assert np.array_equal(np.sort(order(n, permutation_key("once", n))), np.arange(n))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 5000), data=st.data())
def test_a_position_gives_the_same_alone_as_among_all(n: int, data: st.DataObject) -> None:
    key = permutation_key("alone", data.draw(st.integers()))
    places = data.draw(st.lists(st.integers(0, n - 1), max_size=20))
    assert permute(np.array(places, np.int64), n, key).tolist() == order(n, key)[places].tolist()


def test_what_is_given_is_left_as_it_was() -> None:
    places = np.arange(50, dtype=np.uint64)
    permute(places, 50, permutation_key("x"))
    assert places.tolist() == list(range(50))


def test_any_integer_type_gives_the_same() -> None:
    key = permutation_key("types")
    for dtype in (np.uint8, np.int16, np.int32, np.uint64):
        assert permute(np.arange(100, dtype=dtype), 100, key).tolist() == order(100, key).tolist()


@pytest.mark.parametrize(("n", "places"), [(0, []), (-1, []), (MAX_N + 1, [0]), (10, [10]), (10, [-1]), (10, [3, 99])])
def test_what_is_out_of_range_is_refused(n: int, places: list[int]) -> None:
    with pytest.raises(ValueError, match=r"1 to 2\^40|must lie in"):
        permute(np.array(places, np.int64), n, permutation_key("x"))


def test_every_element_is_equally_likely_at_every_position(orders_KN: NDArray[np.int64]) -> None:
    keys, n = orders_KN.shape
    seen_NN = np.stack([np.bincount(orders_KN[:, position], minlength=n) for position in range(n)])
    expected = keys / n
    chi_square, freedom = ((seen_NN - expected) ** 2 / expected).sum(), (n - 1) ** 2
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_neighbours_are_as_likely_as_any_pair(orders_KN: NDArray[np.int64]) -> None:
    """Neither do two elements that follow each other stay together, nor two places share what they get."""
    keys, n = orders_KN.shape
    adjacent = (np.diff(orders_KN, axis=1) == 1).sum(axis=1).mean()
    assert abs(adjacent - (n - 1) / n) < 4 / np.sqrt(keys)


def test_one_element_stays_in_its_place_on_average(orders_KN: NDArray[np.int64]) -> None:
    keys, n = orders_KN.shape
    fixed = (orders_KN == np.arange(n)).sum(axis=1).mean()
    assert abs(fixed - 1) < 4 / np.sqrt(keys)


def test_all_orders_of_four_elements_come_equally_often() -> None:
    keys = 1200
    orders_K4 = [tuple(order(4, permutation_key("four", key)).tolist()) for key in range(keys)]
    counts = np.array([orders_K4.count(item) for item in set(orders_K4)])
    assert len(counts) == 24
    assert abs(((counts - keys / 24) ** 2 / (keys / 24)).sum() - 23) < 4 * np.sqrt(2 * 23)


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 1000, 32769])
def test_the_inverse_leads_back_to_every_place(n: int) -> None:
    key = permutation_key("inverse", n)
    assert unpermute(order(n, key), n, key).tolist() == list(range(n))


def test_the_inverse_of_the_largest_permutation() -> None:
    places = np.array([0, 1, 1 << 39, MAX_N - 1])
    key = permutation_key("inverse")
    assert unpermute(permute(places, MAX_N, key), MAX_N, key).tolist() == places.tolist()
    assert permute(unpermute(places, MAX_N, key), MAX_N, key).tolist() == places.tolist()
