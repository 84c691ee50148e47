"""When each sample that a machine reads is read again, computed from the plan ahead of the reading.

It knows the next `HORIZON` reads. They take 16 bytes each, and 24 more while they are computed: 8 million samples read
three times are 24 million reads, or two horizons. What is read again after the horizon counts as far in the future.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from griffon_train.data.sample_cache import FAR, NEVER

HORIZON = 1 << 24
"""Reads that are known ahead."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Known:
    """Some consecutive reads.

    Attributes:
        first: position of the first one.
        numbers: the samples' numbers, shape [reads].
        next_uses: position at which each sample is read again, or `FAR` or `NEVER`; shape [reads].
        complete: whether nothing is read after them.
    """

    first: int
    numbers: NDArray[np.int64]
    next_uses: NDArray[np.int64]
    complete: bool

    @classmethod
    def of(cls, first: int, numbers: NDArray[np.int64], *, complete: bool) -> "Known":
        """Find the next uses of some reads."""
        next_uses = np.full(len(numbers), NEVER if complete else FAR)
        order = np.argsort(numbers, kind="stable")
        again = np.flatnonzero(numbers[order[1:]] == numbers[order[:-1]])
        next_uses[order[again]] = first + order[again + 1]
        return cls(first=first, numbers=numbers, next_uses=next_uses, complete=complete)

    def next_use(self, position: int) -> int:
        """When the sample that is read at a position is read again; `FAR` if the position is not known."""
        place = position - self.first
        return int(self.next_uses[place]) if 0 <= place < len(self.next_uses) else FAR

    def from_position(self, position: int, numbers: tuple[int, ...]) -> dict[int, int]:
        """When some samples are first read at or after a position; those that never are are left out."""
        place = max(0, position - self.first)
        ahead, at = np.unique(self.numbers[place:], return_index=True)
        wanted = np.array(numbers, np.int64)
        if not len(ahead):
            return {} if self.complete else dict.fromkeys(numbers, FAR)
        where = np.minimum(np.searchsorted(ahead, wanted), len(ahead) - 1)
        there = ahead[where] == wanted
        uses = np.where(there, at[where] + self.first + place, NEVER if self.complete else FAR)
        return dict(zip(numbers, uses.tolist(), strict=True))


class NextUses:
    """Computes what is known in a thread of its own, half a horizon at a time."""

    def __init__(self, reads: Callable[[], Iterator[NDArray[np.int64]]], horizon: int = HORIZON) -> None:
        """Start computing.

        Args:
            reads: yields the numbers of the samples that are read, in order, in pieces.
            horizon: reads that are known ahead.
        """
        self._reads, self._horizon = reads, horizon
        self._changed = threading.Condition()
        self._known: Known | None = None
        self._position = 0
        self._ended = False
        self._thread = threading.Thread(target=self._compute, name="next uses", daemon=True)
        self._thread.start()

    def latest(self, position: int, wait_s: float = 0.0) -> Known | None:
        """What is known when reading has come to a position; waits for the first result, but not for long."""
        with self._changed:
            self._position = position
            self._changed.notify_all()
            if self._known is None and wait_s:
                self._changed.wait(wait_s)
            return self._known

    def close(self) -> None:
        """Stop computing."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _compute(self) -> None:
        first, pieces, total = 0, list[NDArray[np.int64]](), 0
        reads = self._reads()
        complete = False
        while not complete:
            for piece in reads:
                pieces.append(piece)
                total += len(piece)
                if total >= self._horizon or self._ended:
                    break
            else:
                complete = True
            numbers = np.concatenate(pieces) if pieces else np.empty(0, np.int64)
            known = Known.of(first, numbers, complete=complete)
            with self._changed:
                self._known = known
                self._changed.notify_all()
                while not complete and not self._ended and self._position < first + total // 2:
                    self._changed.wait()
                if self._ended:
                    return
                start = self._position - first
            pieces, first, total = [numbers[start:]], first + start, len(numbers) - start
