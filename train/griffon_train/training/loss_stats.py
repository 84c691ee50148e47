"""Accumulates losses by task group over the micro-batches of a step, then over all ranks."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from griffon_train.data.batch import Batch
from griffon_train.data.batch_id import batch_id_of, place_id
from griffon_train.data.source_stream import GROUPINGS, task_group
from griffon_train.distributed.process_group import ProcessGroup

_GROUPS = GROUPINGS["task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTotals:
    """Totals over all ranks.

    Attributes:
        loss: mean over all target tokens; 0 if there are none.
        loss_by_group: the same for each task group that has target tokens.
        overlong: number of samples longer than `--max-length`.
        without_targets: number of samples without target tokens.
        tokens: number of tokens of all samples, without padding.
        batch_id: hash of the samples' slots and keys; equal batches of two runs have the same.
    """

    loss: float
    loss_by_group: Mapping[str, float]
    overlong: int
    without_targets: int
    tokens: int
    batch_id: str


class LossAccumulator:
    """Accumulates the losses and counts of this rank."""

    def __init__(self) -> None:
        self._losses: list[tuple[list[int], torch.Tensor]] = []
        self._counts = dict.fromkeys(_GROUPS, 0)
        self._overlong = self._without_targets = self._tokens = self._batch_id = 0

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `over`."""
        indices = []
        for task, has_image, example in zip(batch.tasks, batch.has_image, batch.examples, strict=True):
            group = task_group(task, has_image) if task else _GROUPS[0]  # the plan's grouping
            indices.append(_GROUPS.index(group))
            if example is not None:
                self._counts[group] += example.targets
                self._without_targets += not example.targets
                self._tokens += len(example.ids)
        self._batch_id += sum(place_id(slot, key) for slot, key in zip(batch.slots, batch.keys, strict=True) if key)
        self._overlong += sum(batch.overlong)
        self._losses.append((indices, losses_B))

    def over(self, ranks: ProcessGroup) -> LossTotals:
        """The totals over all ranks. Every rank calls this."""
        sums = dict.fromkeys(_GROUPS, 0.0)
        for indices, losses_B in self._losses:
            for index, loss in zip(indices, losses_B.tolist(), strict=True):
                sums[_GROUPS[index]] += loss
        others = (self._overlong, self._without_targets, self._tokens, self._batch_id)
        values = ranks.sums([*sums.values(), *self._counts.values(), *others])
        losses, counts = values[: len(_GROUPS)], values[len(_GROUPS) : 2 * len(_GROUPS)]
        return LossTotals(
            loss=sum(losses) / max(sum(counts), 1.0),
            loss_by_group={
                group: loss / count for group, loss, count in zip(_GROUPS, losses, counts, strict=True) if count
            },
            overlong=int(values[-4]),
            without_targets=int(values[-3]),
            tokens=int(values[-2]),
            batch_id=batch_id_of(int(values[-1])),
        )
