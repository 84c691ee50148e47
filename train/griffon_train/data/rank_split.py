"""Sharing a global batch out: over ranks, and over micro-steps of each, so that like lengths go together."""

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import SettingsError

DUMMY = -1
"""Stands in a micro-batch where there is no sample left: it has no targets, and only keeps all ranks in step."""


def micro_steps(global_batch: int, world_size: int, micro_batch: int) -> int:
    """How many micro-batches every rank runs in a step."""
    most_of_a_rank = -(-global_batch // world_size)
    return -(-most_of_a_rank // micro_batch)


def split_slots(lengths: NDArray[np.int64], world_size: int, micro_batch: int) -> NDArray[np.int64]:
    """Which slots each rank takes in each micro-step.

    Slots are dealt by length, longest first, to and fro over the ranks: every rank gets as much to do, ranks differ by
    at most one sample, and what meets in a micro-batch, or at the same time on all ranks, is of like length.

    Args:
        lengths: of the slots of a global batch, shape [G].
        world_size: number of ranks.
        micro_batch: samples of a rank that are computed at once.

    Returns:
        Slots, or `DUMMY`; shape [world_size, micro_steps, micro_batch]. Every slot stands there exactly once.

    Raises:
        SettingsError: a size is below 1.
    """
    if world_size < 1 or micro_batch < 1:
        raise SettingsError(f"world size and micro-batch must be at least 1, got {world_size} and {micro_batch}")
    longest_first = np.argsort(-lengths, kind="stable")
    steps = micro_steps(len(lengths), world_size, micro_batch)
    dealt = np.full((steps * micro_batch, world_size), DUMMY, np.int64)
    dealt.reshape(-1)[: len(lengths)] = longest_first
    dealt[1::2] = dealt[1::2, ::-1]
    return dealt.T.reshape(world_size, steps, micro_batch)
