"""Divide a global batch among ranks and their micro-steps, so that samples of similar length run together."""

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import SettingsError

DUMMY = -1
"""Fills a micro-batch when no sample is left; it has no targets and only keeps the ranks in step."""


def micro_steps(global_batch: int, world_size: int, micro_batch: int) -> int:
    """Return the number of micro-batches that every rank runs per step."""
    most_of_a_rank = -(-global_batch // world_size)
    return -(-most_of_a_rank // micro_batch)


def split_slots(lengths: NDArray[np.int64], world_size: int, micro_batch: int) -> NDArray[np.int64]:
    """Assign the slots of a global batch to ranks and micro-steps.

    Slots are dealt by length, longest first, back and forth over the ranks. Every rank gets about the same amount of
    work, ranks differ by at most one sample, and samples that run at the same time have similar lengths.

    Args:
        lengths: length of each slot of a global batch, shape [G].
        world_size: number of ranks.
        micro_batch: samples per micro-batch.

    Returns:
        Slots, or `DUMMY`; shape [world_size, micro_steps, micro_batch]. Every slot occurs exactly once.

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
