"""Accumulates losses by task group over the micro-batches of a step, then over all ranks."""

from collections.abc import Mapping, Sequence
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


class LossSums:
    """Sums of losses and of target tokens by bin, such as a task group or a source."""

    def __init__(self, bins: int) -> None:
        self._losses: list[tuple[Sequence[int], torch.Tensor]] = []
        self._targets = [0] * bins

    def add(self, bin_of_B: Sequence[int], targets_of_B: Sequence[int], losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `of_rank`."""
        for index, targets in zip(bin_of_B, targets_of_B, strict=True):
            self._targets[index] += targets
        self._losses.append((bin_of_B, losses_B))

    def of_rank(self) -> tuple[list[float], list[int]]:
        """Summed losses in nats, and numbers of target tokens, of this rank; one of each per bin."""
        losses = [0.0] * len(self._targets)
        for bin_of_B, losses_B in self._losses:
            for index, loss in zip(bin_of_B, losses_B.tolist(), strict=True):
                losses[index] += loss
        return losses, self._targets


class LossAccumulator:
    """Accumulates the losses and counts of this rank."""

    def __init__(self) -> None:
        self._sums = LossSums(len(_GROUPS))
        self._overlong = self._without_targets = self._tokens = self._batch_id = 0

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `over`."""
        targets_of_B = [0 if example is None else example.targets for example in batch.examples]
        self._sums.add([_GROUPS.index(group) for group in task_groups(batch)], targets_of_B, losses_B)
        for example in batch.examples:
            if example is not None:
                self._without_targets += not example.targets
                self._tokens += len(example.ids)
        self._batch_id += sum(place_id(slot, key) for slot, key in zip(batch.slots, batch.keys, strict=True) if key)
        self._overlong += sum(batch.overlong)

    def over(self, ranks: ProcessGroup) -> LossTotals:
        """The totals over all ranks. Every rank calls this."""
        losses_of_rank, targets_of_rank = self._sums.of_rank()
        others = (self._overlong, self._without_targets, self._tokens, self._batch_id)
        values = ranks.sums([*losses_of_rank, *targets_of_rank, *others])
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


def task_groups(batch: Batch) -> list[str]:
    """The task group of each sample, as the plan groups them; dummies, which have no loss, are in the first."""
    return [
        task_group(task, has_image) if task else _GROUPS[0]
        for task, has_image in zip(batch.tasks, batch.has_image, strict=True)
    ]
