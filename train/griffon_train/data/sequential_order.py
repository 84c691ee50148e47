"""Every row of some sets once, in order, for validation. The loader uses it like a plan."""

from collections.abc import Sequence

import numpy as np

from griffon_shards.frozen_set import FrozenSet
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan, Step


class SequentialOrder:
    """Steps over all rows of some sets, in the order of sets and rows, variant 0; the last step may be smaller.

    Attributes:
        sets: the frozen sets.
        steps: number of steps.
    """

    def __init__(self, sets: Sequence[FrozenSet], global_batch: int) -> None:
        self.sets = tuple(sets)
        self._global_batch = global_batch
        self._ends = np.cumsum([len(frozen) for frozen in sets])
        self._lengths = Lengths.estimated(sets)
        self.steps = -(-int(self._ends[-1]) // global_batch)

    def step(self, number: int) -> Step:
        """Return the rows of a step."""
        stop = min((number + 1) * self._global_batch, int(self._ends[-1]))
        places = np.arange(number * self._global_batch, stop)
        sets = np.searchsorted(self._ends, places, side="right")
        rows = places - np.concatenate(([0], self._ends))[sets]
        variants = np.zeros_like(rows)
        lengths = np.zeros_like(rows)
        for set_no in np.unique(sets).tolist():
            mine = sets == set_no
            lengths[mine] = self._lengths.of(set_no, rows[mine], variants[mine])
        return Step(number=number, epoch=0, group="all", sets=sets, rows=rows, variants=variants, lengths=lengths)


StepOrder = Plan | SequentialOrder
"""An order that a loader can read: it has sets, and maps a step to rows of these sets."""
