"""Accumulates losses by task group over the micro-batches of a step, then over all ranks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from griffon_train.data.batch import Batch
from griffon_train.data.batch_id import batch_id_of, place_id
from griffon_train.data.source_stream import GROUPINGS, task_group
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.flops import StepCounts

_GROUPS = GROUPINGS["task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossTotals:
    """Totals over all ranks.

    Attributes:
        loss: mean over all target tokens; 0 if there are none.
        loss_by_group: the same for each task group that has target tokens.
        overlong: number of samples longer than `--max-length`.
        without_targets: number of samples without target tokens.
        counts: tokens, images and other sums, for the operations of the step.
        batch_id: hash of the samples' slots and keys; equal batches of two runs have the same.
    """

    loss: float
    loss_by_group: Mapping[str, float]
    overlong: int
    without_targets: int
    counts: StepCounts
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
        self._overlong = self._without_targets = self._batch_id = 0
        self._tokens = self._squared_tokens = self._images = self._regions = 0

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `over`."""
        targets_of_B = [0 if example is None else example.targets for example in batch.examples]
        self._sums.add([_GROUPS.index(group) for group in task_groups(batch)], targets_of_B, losses_B)
        for example in batch.examples:
            if example is not None:
                self._without_targets += not example.targets
                self._tokens += len(example.ids)
                self._squared_tokens += len(example.ids) ** 2
        self._images += len(batch.pixels_PHWC)
        self._regions += len(batch.regions_RHWC)
        self._batch_id += sum(place_id(slot, key) for slot, key in zip(batch.slots, batch.keys, strict=True) if key)
        self._overlong += sum(batch.overlong)

    def over(self, ranks: ProcessGroup) -> LossTotals:
        """The totals over all ranks. Every rank calls this."""
        losses_of_rank, targets_of_rank = self._sums.of_rank()
        seen = (self._tokens, self._squared_tokens, self._images, self._regions)
        others = (self._overlong, self._without_targets, self._batch_id)
        values = ranks.sums([*losses_of_rank, *targets_of_rank, *seen, *others])
        losses, counts = values[: len(_GROUPS)], values[len(_GROUPS) : 2 * len(_GROUPS)]
        tokens, squared_tokens, images, regions, overlong, without_targets, batch_id = map(int, values[-7:])
        return LossTotals(
            loss=sum(losses) / max(sum(counts), 1.0),
            loss_by_group={
                group: loss / count for group, loss, count in zip(_GROUPS, losses, counts, strict=True) if count
            },
            overlong=overlong,
            without_targets=without_targets,
            counts=StepCounts(
                tokens=tokens,
                squared_tokens=squared_tokens,
                targets=int(sum(counts)),
                images=images,
                regions=regions,
            ),
            batch_id=batch_id_of(batch_id),
        )


def task_groups(batch: Batch) -> list[str]:
    """The task group of each sample, as the plan groups them; dummies, which have no loss, are in the first."""
    return [
        task_group(task, has_image) if task else _GROUPS[0]
        for task, has_image in zip(batch.tasks, batch.has_image, strict=True)
    ]
