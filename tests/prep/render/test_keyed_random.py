"""Keyed draws: pinned for good, fair, and the same in every process."""

import os
import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from griffon_prep.render.keyed_random import KeyedRandom

GOLDEN_WORDS = [
    2737020980013900959,
    14221086013482948993,
    17689461681078949512,
    2759362567678775320,
    3709885525055153665,
    11584785126906382442,
    11606748020474200788,
    7191020444942843916,
    13780258919075018632,
    5142463208840322152,
]
"""Little-endian words of BLAKE2b over the key and a block number, from outside the project."""

RENDER_IN_A_PROCESS = """
from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.records import Record, Region
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.templates import load_templates
draws = KeyedRandom(3, "DET_标", 5, 1, "a purpose")
print([draws.below(1000) for _ in range(20)], draws.sample(10**9, 5), draws.shuffled("abcdefgh"))
settings = RenderSettings(seed=1, boxes="text", det_categories=9, variants=3, templates=load_templates(None))
names = [f"name {i}" for i in range(40)]
regions = tuple(Region(phrase=name, box_xyxy_px=(i, 1, 50, 60)) for i, name in enumerate(names[:4]))
record = Record(record_no=7, image_path="a", width_px=100, height_px=100, regions=regions, absent_phrases=("x", "y"))
for task in ("DET", "RANDDET", "VISJ"):
    print(render(record, Source(tag=f"{task}_t", task=task, vocabulary=tuple(names)), settings))
"""


def test_golden_values() -> None:
    draws = KeyedRandom(0, "DET_0", 12, 0, "negatives")
    assert [draws.below(1 << 64) for _ in range(10)] == GOLDEN_WORDS
    assert [KeyedRandom(0, "DET_0", 12, 0, "negatives").below(n) for n in (2, 10, 1000, 10**12)] == [
        1,
        9,
        959,
        980013900959,
    ]
    assert KeyedRandom(1, "VG_标注", 10**9, 3, "template").sample(20, 6) == [14, 2, 1, 6, 9, 18]
    assert KeyedRandom(1, "VG_标注", 10**9, 3, "template").sample(10**15, 3) == [
        663467566885354,
        228459709251193,
        450705972956036,
    ]
    assert "".join(KeyedRandom(-5, "REG", 0, 1, "order").shuffled("griffon")) == "irfngfo"
    assert KeyedRandom(0, "LAZY", 1, 0, "region").choice(["a", "b", "c", "d"]) == "c"


def test_the_whole_key_counts() -> None:
    keys = [
        (0, "DET", 1, 0, "a"),
        (1, "DET", 1, 0, "a"),
        (0, "REG", 1, 0, "a"),
        (0, "DET", 2, 0, "a"),
        (0, "DET", 1, 1, "a"),
        (0, "DET", 1, 0, "b"),
        (0, "DET1", 1, 0, "a"),
        (0, "DET", 11, 0, "a"),
        (0, "DET", 1, 10, "a"),
        (10, "DET", 1, 0, "a"),
    ]
    assert len({KeyedRandom(*key).below(1 << 64) for key in keys}) == len(keys)


@settings(deadline=None)
@given(st.integers(1, 1 << 64), st.integers())
def test_paths_below_the_root_stay_below_it(n: int, seed: int) -> None:
    draws = KeyedRandom(seed, "DET", 0, 0, "test")
    assert all(0 <= draws.below(n) < n for _ in range(20))


@settings(deadline=None)
@given(st.integers(0, 300), st.data())
def test_samples_are_distinct_and_a_shorter_one_is_the_beginning(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    drawn = KeyedRandom(0, "DET", n, 0, "sample").sample(n, k)
    assert len(drawn) == len(set(drawn)) == k
    assert all(0 <= member < n for member in drawn)
    whole = KeyedRandom(0, "DET", n, 0, "sample").sample(n, n)
    assert sorted(whole) == list(range(n))
    assert whole[:k] == drawn


def test_every_order_is_equally_likely() -> None:
    orders = Counter("".join(KeyedRandom(0, "DET", i, 0, "order").shuffled("abc")) for i in range(6000))
    assert set(orders) == {"".join(order) for order in permutations("abc")}
    assert all(850 < count < 1150 for count in orders.values())


def test_every_choice_is_equally_likely() -> None:
    chosen = Counter(KeyedRandom(i, "DET", 0, 0, "choice").choice("vwxyz") for i in range(5000))
    assert set(chosen) == set("vwxyz")
    assert all(850 < count < 1150 for count in chosen.values())


def test_what_is_shuffled_is_left_as_it_was() -> None:
    items = list(range(50))
    shuffled = KeyedRandom(0, "DET", 0, 0, "order").shuffled(items)
    assert items == list(range(50)) != shuffled
    assert sorted(shuffled) == items


@pytest.fixture(scope="module")
def first_process() -> str:
    return output_with_hash_seed("0")


def output_with_hash_seed(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"}
    return subprocess.check_output([sys.executable, "-c", RENDER_IN_A_PROCESS], text=True, env=environment)


@pytest.mark.parametrize("hash_seed", ["1", "4242", "random"])
def test_the_hash_seed_changes_nothing(first_process: str, hash_seed: str) -> None:
    assert first_process.count("name") > 20
    assert output_with_hash_seed(hash_seed) == first_process
