"""What the cache holds: bytes fetched are those of the optimal policy, computed here on its own."""

import random
import time
from collections import OrderedDict

import numpy as np
import pytest

from griffon_train.data.next_uses import Known, NextUses
from griffon_train.data.sample_cache import FAR, NEVER, FarthestFirst

from ...waiting import TIMEOUT_S


def fetched_bytes(reads: list[int], sizes: list[int], capacity: int) -> int:
    policy, known = FarthestFirst(capacity), Known.of(0, np.array(reads, np.int64), complete=True)
    held: set[int] = set()
    fetched = 0
    for place, number in enumerate(reads):
        use = policy.use(number, sizes[number], known.next_use(place))
        assert use.hit == (number in held)
        fetched += 0 if use.hit else sizes[number]
        held = (held | {number} if use.kept else held - {number}) - set(use.evicted)
        assert sum(sizes[number] for number in held) <= capacity
        assert held == set(policy.numbers)
    assert not held, "nothing is needed after the end"
    return fetched


def optimal_bytes(reads: list[int], sizes: list[int], capacity: int) -> int:
    held: dict[int, int] = {}
    fetched = 0
    for place, number in enumerate(reads):
        if held.pop(number, None) is None:
            fetched += sizes[number]
        later = [other for other in range(place + 1, len(reads)) if reads[other] == number]
        if later:
            held[number] = later[0]
        while sum(sizes[number] for number in held) > capacity:
            del held[max(held, key=held.__getitem__)]
    return fetched


def lru_bytes(reads: list[int], sizes: list[int], capacity: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    fetched = 0
    for number in reads:
        fetched += 0 if number in held else sizes[number]
        held[number] = None
        held.move_to_end(number)
        while sum(sizes[number] for number in held) > capacity:
            held.popitem(last=False)
    return fetched


@pytest.mark.parametrize("seed", range(20))
def test_with_one_size_it_fetches_what_the_optimal_policy_fetches(seed: int) -> None:
    draw = random.Random(seed)
    reads = [draw.randrange(20) for _ in range(200)]
    sizes, capacity = [7] * 20, 7 * draw.randrange(1, 15)
    assert fetched_bytes(reads, sizes, capacity) == optimal_bytes(reads, sizes, capacity)


def test_with_sizes_as_in_a_set_it_is_within_two_percent_of_farthest_in_future_and_better_than_lru() -> None:
    draw = random.Random(0)
    samples = 150
    sizes = [draw.randrange(60_000, 150_000) for _ in range(samples)]
    reads = [number for _ in range(3) for number in draw.sample(range(samples), samples)]
    capacity = sum(sizes) // 2
    fetched = fetched_bytes(reads, sizes, capacity)
    assert fetched <= 1.02 * optimal_bytes(reads, sizes, capacity)
    assert fetched < 0.85 * lru_bytes(reads, sizes, capacity)


def test_what_is_needed_later_than_all_that_is_cached_is_not_admitted() -> None:
    policy = FarthestFirst(2)
    assert policy.use(1, 1, 10).kept and policy.use(2, 1, 20).kept
    assert not policy.use(3, 1, 30).kept
    assert policy.use(4, 1, 15).evicted == (2,)
    assert set(policy.numbers) == {1, 4}


def test_a_sample_that_does_not_fit_evicts_nothing() -> None:
    policy = FarthestFirst(10)
    policy.use(1, 6, 100), policy.use(2, 4, 5)
    assert not policy.use(3, 11, 1).kept
    assert not policy.use(3, 7, 50).kept, "it would have to evict what is needed sooner, too"
    assert set(policy.numbers) == {1, 2}
    assert policy.use(3, 6, 50).evicted == (1,)


def test_new_knowledge_evicts_what_is_never_needed_again() -> None:
    policy = FarthestFirst(3)
    for number in (1, 2, 3):
        policy.use(number, 1, FAR)
    assert policy.replan({1: 7, 2: 9}) == (3,)
    assert policy.use(4, 1, FAR).kept
    assert policy.use(5, 1, 8).evicted == (4,)
    assert policy.use(6, 1, 8).evicted == (2,)


@pytest.mark.parametrize("horizon", [10, 37, 1000])
def test_next_uses_within_half_a_horizon_are_right_all_the_way(horizon: int) -> None:
    draw = random.Random(horizon)
    reads = [draw.randrange(30) for _ in range(300)]
    pieces = [np.array(reads[start : start + 4], np.int64) for start in range(0, len(reads), 4)]
    uses = NextUses(lambda: iter(pieces), horizon)
    try:
        for place, number in enumerate(reads):
            known = uses.latest(place, 10)
            while known is None or place >= known.first + len(known.numbers):  # it is computed meanwhile
                known = uses.latest(place)
            true = next((later for later in range(place + 1, len(reads)) if reads[later] == number), NEVER)
            given = known.next_use(place)
            assert given in (true, FAR)
            if known.complete:
                assert given == true
            if true < known.first + len(known.numbers):
                assert given == true
            first = known.from_position(place, (number, 1000))
            assert first[number] == place and first[1000] == (NEVER if known.complete else FAR)
        limit = time.monotonic() + TIMEOUT_S
        while not (known and known.complete) and time.monotonic() < limit:  # the last result may still be on its way
            time.sleep(0.01)
            known = uses.latest(len(reads))
        assert known and known.complete
    finally:
        uses.close()
