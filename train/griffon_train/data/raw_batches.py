"""The plan's samples as they lie in the shards, for those who decode elsewhere (on the device, say).

Read ahead by threads: neither reading nor the checksum holds the interpreter, and nothing has to be copied from one
process to another.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from griffon_train.data.loader import Slot, rank_slots
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY

_AHEAD = 4  # micro-batches for each thread


def raw_batches(
    plan: Plan, *, rank: int = 0, world_size: int = 1, micro_batch: int = 1, threads: int = 2, start: int = 0, stop: int
) -> Iterator[list[tuple[Slot, bytes]]]:
    """The micro-batches of one rank: each slot with its sample's tar bytes, checked; dummies are left out.

    `griffon_shards.tar.split_sample` takes the bytes apart.

    Args:
        plan: what comes when.
        rank: of this process.
        world_size: number of ranks.
        micro_batch: samples that come together.
        threads: that read ahead.
        start: first step.
        stop: one past the last step.

    Raises:
        DataError: a sample cannot be read; it names shard and key.
    """

    def read(slots: list[Slot]) -> list[tuple[Slot, bytes]]:
        return [(slot, plan.sets[slot.set_no].raw(slot.row)) for slot in slots if slot.row != DUMMY]

    awaited: deque[Future[list[tuple[Slot, bytes]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(start, stop):
                for slots in rank_slots(plan, number, rank, world_size, micro_batch):
                    awaited.append(pool.submit(read, slots))
                    if len(awaited) > _AHEAD * threads:
                        yield awaited.popleft().result()
            while awaited:
                yield awaited.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
