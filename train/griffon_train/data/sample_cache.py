"""Which samples a cache of limited size holds: those that are needed again soonest.

To evict what is needed again farthest in the future is optimal where all samples have one size, and the usual rule
where sizes vary. Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", 1966.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

NEVER = (1 << 63) - 1
"""The next use of a sample that is not used again."""

FAR = NEVER - 1
"""The next use of a sample that may be used again, later than everything that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a use of a sample means for the cache.

    Attributes:
        hit: whether the cache holds the sample.
        kept: whether it holds the sample afterwards.
        evicted: samples that it does not hold any more.
    """

    hit: bool
    kept: bool
    evicted: tuple[int, ...] = ()


class FarthestFirst:
    """The samples in a cache, by their numbers. It has no bytes, and depends on nothing but the calls made."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes, self._held_bytes = capacity_bytes, 0
        self._held: dict[int, tuple[int, int]] = {}  # next use and size
        self._farthest: list[tuple[int, int]] = []  # a heap of negated next use and number, with outdated entries

    def __contains__(self, number: int) -> bool:
        return number in self._held

    @property
    def numbers(self) -> tuple[int, ...]:
        """The samples that are held."""
        return tuple(self._held)

    def use(self, number: int, size_bytes: int, next_use: int) -> Use:
        """Use a sample. It is kept if there is room, or if others are needed later than it is.

        Args:
            number: number of the sample.
            size_bytes: its size.
            next_use: when it is used again, on a scale that all calls share; or `FAR`, or `NEVER`.
        """
        hit = number in self._held
        if hit:
            self._remove(number)
        if next_use == NEVER:
            return Use(hit=hit, kept=False)
        evicted = self._room(size_bytes, next_use)
        if evicted is None:
            return Use(hit=hit, kept=False)
        self._add(number, size_bytes, next_use)
        return Use(hit=hit, kept=True, evicted=evicted)

    def replan(self, next_uses: Mapping[int, int]) -> tuple[int, ...]:
        """Replace the next use of every sample that is held; returns those that are never used again and are evicted.

        Args:
            next_uses: by number; a sample that it lacks is never used again.
        """
        held = self._held
        self._held, self._farthest, self._held_bytes = {}, [], 0
        for number, (_, size_bytes) in held.items():
            if (next_use := next_uses.get(number, NEVER)) != NEVER:
                self._add(number, size_bytes, next_use)
        return tuple(number for number in held if number not in self._held)

    def _add(self, number: int, size_bytes: int, next_use: int) -> None:
        self._held[number] = next_use, size_bytes
        self._held_bytes += size_bytes
        heapq.heappush(self._farthest, (-next_use, number))
        if len(self._farthest) > 2 * len(self._held) + 1000:  # mostly outdated
            self._farthest = [(-next_use, number) for number, (next_use, _) in self._held.items()]
            heapq.heapify(self._farthest)

    def _remove(self, number: int) -> None:
        self._held_bytes -= self._held.pop(number)[1]

    def _room(self, size_bytes: int, next_use: int) -> tuple[int, ...] | None:
        """Evict what is used later until there is room; None, and nothing is evicted, if that is not enough."""
        missing = self._held_bytes + size_bytes - self._capacity_bytes
        chosen: dict[int, int] = {}  # with their next uses
        while missing > 0 and self._farthest and -self._farthest[0][0] > next_use:
            negated, number = heapq.heappop(self._farthest)
            if number in self._held and self._held[number][0] == -negated and number not in chosen:
                chosen[number] = -negated
                missing -= self._held[number][1]
        if missing > 0:
            for number, later in chosen.items():
                heapq.heappush(self._farthest, (-later, number))
            return None
        for number in chosen:
            self._remove(number)
        return tuple(chosen)
