"""Reads what the ranks of a machine will need next, in the order of the plan, several requests at once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import DataError
from griffon_train.data.node_reader import ReadOrder
from griffon_train.data.rank_split import DUMMY, split_slots

AHEAD_BYTES = 256 << 20
"""Bytes of samples that are in memory or on their way before a rank wants them; what it wants next comes on top."""

Fetch = Callable[[int, int], "Future[bytes]"]
"""Starts reading a row of a set."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NodeStep:
    """What a machine reads of a step: slots, set numbers and rows, each of shape [samples]."""

    number: int
    slots: NDArray[np.int64]
    sets: NDArray[np.int64]
    rows: NDArray[np.int64]


def node_steps(order: ReadOrder, start: int) -> Iterator[NodeStep]:
    """Yield what a machine reads of each step from `start` on, in the order in which its ranks need it."""
    stop = order.stop
    for number in count(start) if stop is None else range(start, stop):
        if number in order.skipped:
            continue
        step = order.order.step(number)
        split = split_slots(step.lengths, order.world_size, order.micro_batch)
        slots = split[list(order.ranks)].swapaxes(0, 1).reshape(-1)  # by micro-batch, then by rank
        slots = slots[slots != DUMMY]
        yield NodeStep(number=number, slots=slots, sets=step.sets[slots], rows=step.rows[slots])


class ReadAhead:
    """Walks over an order and keeps its next samples in memory until they were read for the last time."""

    def __init__(self, order: ReadOrder, fetch: Fetch, ahead_bytes: int = AHEAD_BYTES) -> None:
        """Start reading.

        Args:
            order: what will be read.
            fetch: starts reading a row of a set.
            ahead_bytes: samples that are not wanted yet may take this much memory.
        """
        self._order, self._fetch, self._ahead_bytes = order, fetch, ahead_bytes
        self._changed = threading.Condition()
        self._samples: dict[tuple[int, int], tuple[Future[bytes], int]] = {}  # by step and slot, with their sizes
        self._held_bytes = 0
        self._wanted = order.start - 1  # the last step that a rank has wanted
        self._error: DataError | None = None
        self._ended = False
        self._walk = threading.Thread(target=self._walk_safely, name="read ahead", daemon=True)
        self._walk.start()

    def sample(self, step: int, slot: int, *, last: bool) -> "Future[bytes]":
        """The sample in a slot, which may still be on its way.

        Args:
            step: number of the step.
            slot: slot in its global batch.
            last: whether it is not read again.

        Raises:
            DataError: the order cannot be read.
        """
        with self._changed:
            if step > self._wanted:
                self._wanted = step
                self._changed.notify_all()
            while (step, slot) not in self._samples:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise DataError(f"step {step}, slot {slot}: beyond what is read, or reading has ended")
                self._changed.wait()
            future, size_bytes = self._samples[step, slot]
            if last:
                del self._samples[step, slot]
                self._held_bytes -= size_bytes
                self._changed.notify_all()
            return future

    def close(self) -> None:
        """Stop reading, and drop what is in memory."""
        with self._changed:
            self._ended = True
            for future, _ in self._samples.values():
                future.cancel()
            self._samples.clear()
            self._changed.notify_all()
        self._walk.join()

    def _walk_safely(self) -> None:
        try:
            self._walk_on()
        except DataError as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _walk_on(self) -> None:
        sets = self._order.order.sets
        for step in node_steps(self._order, self._order.start):
            for slot, set_no, row in zip(step.slots.tolist(), step.sets.tolist(), step.rows.tolist(), strict=True):
                size_bytes = int(sets[set_no].index["bytes"][row])
                with self._changed:
                    while self._held_bytes >= self._ahead_bytes and step.number > self._wanted and not self._ended:
                        self._changed.wait()
                    if self._ended:
                        return
                future = self._fetch(set_no, row)
                with self._changed:
                    self._samples[step.number, slot] = future, size_bytes
                    self._held_bytes += size_bytes
                    self._changed.notify_all()
