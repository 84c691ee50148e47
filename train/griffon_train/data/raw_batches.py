"""The plan's samples as stored in the shards, for decoding elsewhere, such as on the GPU.

Threads read ahead: reading and checksums release the interpreter lock, and nothing is copied between processes.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from griffon_train.data.loader import Slot, rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY

_AHEAD = 4  # micro-batches per thread


def raw_batches(
    plan: Plan, *, rank: int = 0, world_size: int = 1, micro_batch: int = 1, threads: int = 2, start: int = 0, stop: int
) -> Iterator[list[tuple[Slot, bytes]]]:
    """Yield the micro-batches of one rank: each slot with its sample's verified tar bytes, without dummies.

    Split the bytes with `griffon_shards.tar.split_sample`.

    Args:
        plan: maps a step to its samples.
        rank: rank of this process.
        world_size: number of ranks.
        micro_batch: samples per micro-batch.
        threads: number of threads that read ahead.
        start: first step.
        stop: one past the last step.

    Raises:
        DataError: a sample cannot be read; the message names its shard and key.
    """

    def read(slots: list[Slot]) -> list[tuple[Slot, bytes]]:
        return [(slot, plan.sets[slot.set_no].raw(slot.row)) for slot in slots if slot.row != DUMMY]

    awaited: deque[Future[list[tuple[Slot, bytes]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for step in range(start, stop):
                for slots in rank_slots(plan, step, rank, world_size, micro_batch):
                    awaited.append(pool.submit(read, slots))
                    if len(awaited) > _AHEAD * threads:
                        yield awaited.popleft().result()
            while awaited:
                yield awaited.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
