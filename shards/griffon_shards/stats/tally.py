"""Whole numbers counted by value, in bounded memory and so that the order of counting does not matter.

Values below 1,000 are counted exactly, larger ones by their first three digits, which is at most 5,000 counters for
numbers of eight digits. Count, sum, minimum and maximum are exact. Everything is an integer, so that tallies of parts
add up to the tally of the whole, bit for bit, in any order.
"""

from bisect import bisect_right
from collections import Counter

import numpy as np
from numpy.typing import NDArray

_EXACT_DIGITS = 3
_POWERS = np.array([10**power for power in range(19)])  # all that an int64 holds
_STEPS = (10, 15, 20, 30, 50, 70)
BIN_STARTS = (0, 1, 2, 3, 5, 7, *(step * 10**decade for decade in range(14) for step in _STEPS))
"""Starts of a histogram's bins. Each has two digits at most, so that no counter straddles two bins."""


class Tally:
    """Counts of values, which are integers from 0 on.

    Attributes:
        count: number of values.
        total: their sum.
        least: the smallest, None without values.
        most: the largest, None without values.
        counters: number of values by their first three digits: 1,234 is counted as 1,230.
    """

    __slots__ = ("count", "counters", "least", "most", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.least: int | None = None
        self.most: int | None = None
        self.counters: Counter[int] = Counter()

    def add(self, values: NDArray[np.int64]) -> None:
        """Count some values; shape [values]."""
        if not values.size:
            return
        self.count += len(values)
        self.total += int(values.sum())
        self._widen(int(values.min()), int(values.max()))
        counted, numbers = np.unique(_three_digits(values), return_counts=True)
        for value, number in zip(counted.tolist(), numbers.tolist(), strict=True):
            self.counters[value] += number

    def merge(self, other: "Tally") -> None:
        """Count everything that `other` has counted."""
        self.count += other.count
        self.total += other.total
        if other.least is not None and other.most is not None:
            self._widen(other.least, other.most)
        self.counters.update(other.counters)

    def percentiles(self, *percents: int) -> list[int]:
        """The smallest values, to three digits, that at least these percents of all do not exceed; without any, 0."""
        ranks = [max(1, -(-percent * self.count // 100)) for percent in percents]
        results = [0] * len(ranks)
        below = 0
        for value, number in sorted(self.counters.items()):
            for place, rank in enumerate(ranks):
                if below < rank <= below + number:
                    results[place] = value
            below += number
        return results

    def bins(self) -> list[tuple[int, int]]:
        """Start of a bin and its number of values, from the first bin with a value to the last."""
        if self.least is None or self.most is None:
            return []
        first, last = bisect_right(BIN_STARTS, self.least) - 1, bisect_right(BIN_STARTS, self.most) - 1
        numbers = [0] * (last - first + 1)
        for value, number in self.counters.items():
            numbers[bisect_right(BIN_STARTS, value) - 1 - first] += number
        return list(zip(BIN_STARTS[first : last + 1], numbers, strict=True))

    def _widen(self, least: int, most: int) -> None:
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)


def _three_digits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values with everything after their first three digits replaced by zeros."""
    digits = np.searchsorted(_POWERS, values, side="right")
    units = _POWERS[np.maximum(digits - _EXACT_DIGITS, 0)]
    rounded: NDArray[np.int64] = values // units * units
    return rounded
