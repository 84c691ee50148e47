"""Sharing a global batch out: every slot once, ranks in step and in balance, like lengths together."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from griffon_shards.support.errors import SettingsError
from griffon_train.data.rank_split import DUMMY, micro_steps, split_slots

LENGTHS = st.lists(st.integers(1, 5000), min_size=1, max_size=70).map(lambda lengths: np.array(lengths, np.int64))


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, world_size=st.integers(1, 20), micro_batch=st.integers(1, 9))
def test_every_slot_comes_once_and_ranks_are_in_step(
    lengths: NDArray[np.int64], world_size: int, micro_batch: int
) -> None:
    slots_WSB = split_slots(lengths, world_size, micro_batch)
    steps = micro_steps(len(lengths), world_size, micro_batch)
    assert slots_WSB.shape == (world_size, steps, micro_batch)
    assert sorted(slots_WSB[slots_WSB != DUMMY].tolist()) == list(range(len(lengths)))
    of_ranks = (slots_WSB != DUMMY).reshape(world_size, -1)
    assert int(of_ranks.sum(axis=1).max()) - int(of_ranks.sum(axis=1).min()) <= 1
    assert not (of_ranks[:, 1:] & ~of_ranks[:, :-1]).any()  # dummies only at the end of a rank
    assert of_ranks[:, (steps - 1) * micro_batch :].any()  # no micro-step of dummies alone


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, world_size=st.integers(1, 8), micro_batch=st.integers(1, 4))
def test_samples_of_one_micro_step_have_similar_lengths(
    lengths: NDArray[np.int64], world_size: int, micro_batch: int
) -> None:
    """No sample of a micro-step is longer than one of the micro-step before it, on whatever rank."""
    slots_WSB = split_slots(lengths, world_size, micro_batch)
    taken = [slots[slots != DUMMY] for slots in slots_WSB.transpose(1, 0, 2)]
    for before, after in pairwise(taken):
        assert lengths[before].min() >= lengths[after].max()


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, world_size=st.integers(1, 8), micro_batch=st.integers(1, 4))
def test_ranks_get_equal_work(lengths: NDArray[np.int64], world_size: int, micro_batch: int) -> None:
    """Dealt to and fro, no two ranks differ by more than the longest sample."""
    slots_WSB = split_slots(lengths, world_size, micro_batch)
    tokens = [int(lengths[slots[slots != DUMMY]].sum()) for slots in slots_WSB]
    assert max(tokens) - min(tokens) <= int(lengths.max())


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, world_size=st.integers(1, 8))
def test_a_rank_has_the_same_samples_in_any_micro_batches(lengths: NDArray[np.int64], world_size: int) -> None:
    ranks = [[slots[slots != DUMMY].tolist() for slots in split_slots(lengths, world_size, size)] for size in (1, 2, 4)]
    assert ranks[0] == ranks[1] == ranks[2]


@pytest.mark.parametrize(
    ("global_batch", "world_size", "micro_batch", "steps"),
    [(1, 1, 1, 1), (8, 8, 1, 1), (9, 8, 1, 2), (7, 3, 2, 2), (128, 8, 4, 4), (130, 8, 4, 5), (3, 8, 4, 1)],
)
def test_micro_steps(global_batch: int, world_size: int, micro_batch: int, steps: int) -> None:
    assert micro_steps(global_batch, world_size, micro_batch) == steps


def test_equal_lengths_are_dealt_in_order_of_slots() -> None:
    assert split_slots(np.full(7, 5), 3, 2).tolist() == [
        [[0, 5], [6, DUMMY]],
        [[1, 4], [DUMMY, DUMMY]],
        [[2, 3], [DUMMY, DUMMY]],
    ]


@pytest.mark.parametrize(("world_size", "micro_batch"), [(0, 1), (1, 0), (-1, 1), (1, -4)])
def test_sizes_below_one_are_refused(world_size: int, micro_batch: int) -> None:
    with pytest.raises(SettingsError, match=f"at least 1, got {world_size} and {micro_batch}"):
        split_slots(np.arange(5), world_size, micro_batch)
