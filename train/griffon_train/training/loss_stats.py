"""Losses counted by task group, micro-batch by micro-batch, then over all ranks."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from griffon_train.data.batch import Batch
from griffon_train.data.source_stream import GROUPINGS, task_group
from griffon_train.training.distributed import ProcessGroup

_GROUPS = GROUPINGS["task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Of all ranks together.

    Attributes:
        loss: mean over all learned tokens; 0 where there are none.
        loss_by_group: the same for each task group that has any.
        overlong: samples that were cut.
        without_targets: samples of which nothing was learned.
        tokens: of all samples, without padding.
        batch_id: of the samples' places and keys; two runs have the same where they trained on the same batch.
    """

    loss: float
    loss_by_group: Mapping[str, float]
    overlong: int
    without_targets: int
    tokens: int
    batch_id: str


class LossAccumulator:
    """Counts what this rank computes."""

    def __init__(self) -> None:
        self._losses: list[tuple[list[int], torch.Tensor]] = []
        self._counts = dict.fromkeys(_GROUPS, 0)
        self._overlong = self._without_targets = self._tokens = self._batch_id = 0

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Count a micro-batch; its sums of losses stay on the device until the end."""
        places = []
        for task, pictured, example in zip(batch.tasks, batch.pictured, batch.examples, strict=True):
            group = task_group(task, pictured) if task else _GROUPS[0]  # as the plan groups it
            places.append(_GROUPS.index(group))
            if example is not None:
                self._counts[group] += example.targets
                self._without_targets += not example.targets
                self._tokens += len(example.ids)
        self._batch_id += sum(_place_id(slot, key) for slot, key in zip(batch.slots, batch.keys, strict=True) if key)
        self._overlong += sum(batch.overlong)
        self._losses.append((places, losses_B))

    def over(self, ranks: ProcessGroup) -> Whole:
        """The sums over all ranks."""
        sums = dict.fromkeys(_GROUPS, 0.0)
        for places, losses_B in self._losses:
            for place, loss in zip(places, losses_B.tolist(), strict=True):
                sums[_GROUPS[place]] += loss
        others = (self._overlong, self._without_targets, self._tokens, self._batch_id)
        values = ranks.sums([*sums.values(), *self._counts.values(), *others])
        losses, counts = values[: len(_GROUPS)], values[len(_GROUPS) : 2 * len(_GROUPS)]
        return Whole(
            loss=sum(losses) / max(sum(counts), 1.0),
            loss_by_group={g: loss / count for g, loss, count in zip(_GROUPS, losses, counts, strict=True) if count},
            overlong=int(values[-4]),
            without_targets=int(values[-3]),
            tokens=int(values[-2]),
            batch_id=f"{int(values[-1]):013x}",
        )


def _place_id(slot: int, key: str) -> int:
    """40 bits: thousands of them add up in float64 without rounding, in any order."""
    return int.from_bytes(hashlib.blake2b(f"{slot}:{key}".encode(), digest_size=5).digest())
