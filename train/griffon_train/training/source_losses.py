"""Validation losses by source and by set: a mean over a task group hides a source that the model does not learn."""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from griffon_shards.frozen_set import FrozenSet
from griffon_train.data.batch import Batch
from griffon_train.data.sequential_order import SequentialOrder
from griffon_train.distributed.process_group import ProcessGroup


class SourceLosses:
    """Accumulates the losses of this rank by source."""

    def __init__(self, order: SequentialOrder) -> None:
        self._order = order
        sources = [(set_no, source.tag) for set_no, frozen in enumerate(order.sets) for source in frozen.lock.sources]
        self._index = {source: place for place, source in enumerate(sources)}
        self._losses: list[tuple[list[int], torch.Tensor]] = []
        self._counts = [0] * len(sources)

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `over`."""
        sets = self._order.step(batch.step).sets.tolist()
        samples = [place for place, key in enumerate(batch.keys) if key]  # the others are dummies
        indices = [self._index[sets[batch.slots[place]], batch.keys[place].rpartition("-")[0]] for place in samples]
        for index, place in zip(indices, samples, strict=True):
            example = batch.examples[place]
            self._counts[index] += example.targets if example is not None else 0
        self._losses.append((indices, losses_B[samples]))

    def over(self, ranks: ProcessGroup) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """The mean loss over the target tokens of each source, and of each set. Every rank calls this.

        Sets are named after their folders, or by their paths if these have the same name. A tag that several sets have
        is preceded by the set's name. Sources and sets without target tokens are left out.
        """
        sums = [0.0] * len(self._counts)
        for indices, losses in self._losses:
            for index, loss in zip(indices, losses.tolist(), strict=True):
                sums[index] += loss
        totals = ranks.sums([*sums, *self._counts])
        names = _set_names(self._order.sets)
        repeated = Counter(tag for _, tag in self._index)
        by_source: dict[str, list[tuple[float, float]]] = {}
        by_set: dict[str, list[tuple[float, float]]] = {}
        for (set_no, tag), index in self._index.items():
            part = totals[index], totals[len(sums) + index]
            by_source.setdefault(tag if repeated[tag] == 1 else f"{names[set_no]}/{tag}", []).append(part)
            by_set.setdefault(names[set_no], []).append(part)
        return _means(by_source), _means(by_set)


def _means(parts: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, float]:
    """Summed losses over numbers of tokens, where there are tokens."""
    totals = {name: (sum(loss for loss, _ in each), sum(count for _, count in each)) for name, each in parts.items()}
    return {name: loss / count for name, (loss, count) in totals.items() if count}


def _set_names(sets: Sequence[FrozenSet]) -> list[str]:
    names = [frozen.root.name for frozen in sets]
    return names if len(set(names)) == len(names) else [str(frozen.root) for frozen in sets]
