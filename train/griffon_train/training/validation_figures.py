"""The figures of a validation: losses by task group, by set and by source, and scores of answers by source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from griffon_shards.frozen_set import FrozenSet
from griffon_train.data.batch import Batch
from griffon_train.data.sequential_order import SequentialOrder
from griffon_train.data.source_stream import GROUPINGS
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.evaluation import report
from griffon_train.evaluation.evaluate import Evaluation, evaluate
from griffon_train.evaluation.questions import chosen_rows
from griffon_train.evaluation.saved_model import LoadedModel
from griffon_train.training.loss_stats import LossSums, task_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationTotals:
    """Mean losses per target token, and scores. What has no target tokens is left out, except `all`, which is then 0.

    Attributes:
        by_group: `all`, then each task group.
        by_set: each set, by the name of its folder, or by its path where several folders have that name.
        by_source: each source tag. Sources of several sets with the same tag are taken together.
        scores: main figures of the answers of each source, by tag; empty without `--val-generate`.
    """

    by_group: Mapping[str, float]
    by_set: Mapping[str, float]
    by_source: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """All figures by the names that TensorBoard and `--keep-best` have for them."""
        return {
            **self.by_group,
            **{f"set/{name}": loss for name, loss in self.by_set.items()},
            **{f"source/{tag}": loss for tag, loss in self.by_source.items()},
            **{f"score/{tag}/{name}": value for tag, of in self.scores.items() for name, value in of.items()},
        }


class ValidationLosses:
    """Accumulates the losses of this rank over the micro-batches of an order."""

    def __init__(self, order: SequentialOrder) -> None:
        self._order = order
        self._bins = [
            (set_no, source.tag, group)
            for set_no, frozen in enumerate(order.sets)
            for source in frozen.lock.sources
            for group in GROUPINGS["task"]
        ]
        self._index = {bin_: index for index, bin_ in enumerate(self._bins)}
        self._sums = LossSums(len(self._bins))

    def add(self, batch: Batch, losses_B: torch.Tensor) -> None:
        """Add a micro-batch; its losses stay on the device until `over`."""
        sets = self._order.step(batch.step).sets
        bin_of_B = [
            self._index[int(sets[slot]), key.rpartition("-")[0], group] if key else 0
            for slot, key, group in zip(batch.slots, batch.keys, task_groups(batch), strict=True)
        ]
        targets_of_B = [0 if example is None else example.targets for example in batch.examples]
        self._sums.add(bin_of_B, targets_of_B, losses_B)

    def over(self, ranks: ProcessGroup) -> ValidationTotals:
        """The totals over all ranks. Every rank calls this."""
        losses_of_rank, targets_of_rank = self._sums.of_rank()
        values = ranks.sums([*losses_of_rank, *targets_of_rank])
        losses, targets = values[: len(self._bins)], values[len(self._bins) :]
        folders = _folder_names(self._order.sets)
        by_group = _means([group for _, _, group in self._bins], losses, targets)
        return ValidationTotals(
            by_group={
                "all": sum(losses) / max(sum(targets), 1.0),
                **{group: by_group[group] for group in GROUPINGS["task"] if group in by_group},
            },
            by_set=_means([folders[set_no] for set_no, _, _ in self._bins], losses, targets),
            by_source=_means([tag for _, tag, _ in self._bins], losses, targets),
        )


def validation_scores(
    loaded: LoadedModel, sets: Sequence[FrozenSet], samples: int, batch: int, ranks: ProcessGroup
) -> dict[str, dict[str, float]]:
    """The main figures of the answers to `samples` samples of each source, always the same ones. Every rank calls this.

    The answers do not depend on `batch`, the number of questions that a rank answers together.
    """
    evaluation = Evaluation(
        loaded=loaded,
        weights_sha256="",
        sets=sets,
        rows=chosen_rows(sets, tasks=(), sources=(), limit=samples),
        batch=batch,
        max_new_tokens=None,
        convention="gt",
        out=None,
    )
    scores = evaluate(evaluation, ranks).metrics["sources"]
    return {tag: report.main_figures(of_source) for tag, of_source in scores.items()}


def figure_names(sets: Sequence[FrozenSet], *, scores: bool) -> list[str]:
    """The names of the figures that validation on these sets can have, with or without scores of answers."""
    tasks = {source.tag: source.task for frozen in sets for source in frozen.lock.sources}
    return [
        "all",
        *GROUPINGS["task"],
        *(f"set/{name}" for name in _folder_names(sets)),
        *(f"source/{tag}" for tag in tasks),
        *(f"score/{tag}/{name}" for tag, task in tasks.items() for name in report.figure_names(task) if scores),
    ]


def _means(names: Sequence[str], losses: Sequence[float], targets: Sequence[float]) -> dict[str, float]:
    """The mean loss of all bins with the same name, in the order of first appearance; none without targets."""
    totals: dict[str, tuple[float, float]] = {}
    for name, loss, count in zip(names, losses, targets, strict=True):
        before = totals.get(name, (0.0, 0.0))
        totals[name] = before[0] + loss, before[1] + count
    return {name: loss / count for name, (loss, count) in totals.items() if count}


def _folder_names(sets: Sequence[FrozenSet]) -> list[str]:
    names = [frozen.root.name for frozen in sets]
    return [str(frozen.root) if names.count(frozen.root.name) > 1 else frozen.root.name for frozen in sets]
