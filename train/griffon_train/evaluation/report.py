"""All scores of an evaluation: the figures of `metrics.json`, and their table on the terminal."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from griffon_shards.grammar import ANSWERED_WITH_BOXES
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import table
from griffon_shards.types import TASKS
from griffon_train.evaluation.captioning import captioning_scores
from griffon_train.evaluation.counting import counting_scores
from griffon_train.evaluation.detection import detection_scores
from griffon_train.evaluation.matching import Marked, mark
from griffon_train.evaluation.means import mean
from griffon_train.evaluation.predictions import Prediction, place
from griffon_train.evaluation.referring import THRESHOLDS, referring_scores
from griffon_train.evaluation.text import text_scores

_BOX_SCORES: Mapping[str, Callable[[Sequence[Marked], str], dict[str, object]]] = {
    "DET": detection_scores,
    "RANDDET": detection_scores,
    "VG": referring_scores,
    "VISJ": counting_scores,
}
_TEXT_SCORES: Mapping[str, Callable[[Sequence[Prediction]], dict[str, object]]] = {
    "LAZY": text_scores,
    "REG": captioning_scores,
}
_DETECTION_FIGURES = (
    *(("coco", figure) for figure in ("ap", "ap50", "ap75")),
    ("coco_constant", "ap"),
    *(("", figure) for figure in ("f1@0.5", "f1@0.75")),
)
_MAIN_FIGURES: Mapping[str, Sequence[tuple[str, str]]] = {
    "LAZY": (("", "loss_per_token"), ("short_answers", "exact_match")),
    "DET": _DETECTION_FIGURES,
    "RANDDET": _DETECTION_FIGURES,
    "REG": (("", "cider"), ("", "exact_match")),
    "VG": (
        *(("one_box", f"accuracy@{threshold}") for threshold in THRESHOLDS),
        ("one_box", "mean_iou"),
        ("sets", "exact"),
        ("absent", "n_acc"),
        ("present", "t_acc"),
    ),
    "VISJ": tuple(("", figure) for figure in ("f1@0.5", "f1@0.75", "count_exact", "count_mae", "count_rmse")),
}
"""The figures of the table: the part of a task's scores in which they are, or nothing, and their name."""

_PARSING = ("strict", "lenient", "unparsed", "repeated", "cut_off")
_NOT_SHARES = {"loss_per_token", "cider", "count_mae", "count_rmse"}
_DECIMALS = 6


def metrics(predictions: Sequence[Prediction], convention: str) -> dict[str, object]:
    """The figures of an evaluation, the same for any order of the predictions. Shares are in [0, 1].

    `tasks` has the scores of each task in the predictions; `sources` those of each source, by its tag.

    Args:
        predictions: of one or several sets, each question once.
        convention: one of `matching.CONVENTIONS`.

    Raises:
        DataError: a question is predicted twice, a true answer is not of the answer grammar, or the number of scores is
            not that of the boxes.
    """
    in_order = sorted(predictions, key=place)
    for before, after in pairwise(in_order):
        if place(before) == place(after):
            key, asked = after.question.key, after.question.round
            raise DataError(f"{key}, round {asked}, is predicted twice; delete one of its lines from predictions.jsonl")
    marked = {
        place(prediction): mark(prediction)
        for prediction in in_order
        if prediction.question.task in ANSWERED_WITH_BOXES
    }
    tasks: dict[str, object] = {}
    sources: dict[str, object] = {}
    for task in TASKS:
        of_task = [prediction for prediction in in_order if prediction.question.task == task]
        by_source = _by_source(of_task)
        of_sources = {tag: _scores(items, marked, convention) for tag, items in sorted(by_source.items())}
        sources |= of_sources
        if len(of_sources) == 1:
            (tasks[task],) = of_sources.values()
        elif of_sources:
            tasks[task] = _scores(of_task, marked, convention)
    return {
        "questions": len(in_order),
        "convention": convention,
        "tasks": _rounded(tasks),
        "sources": _rounded(sources),
    }


def figures_table(figures: Mapping[str, Any]) -> str:
    """Two tables for the terminal, made of what `metrics` returns: the main figures, and how answers were parsed.

    Figures have their names in `metrics`, with a dot before each inner one. A task with several sources is followed by
    the figures of each.
    """
    parts: list[tuple[str, Mapping[str, Any]]] = []
    for task, scores in figures["tasks"].items():
        sources = [(f"  {tag}", item) for tag, item in figures["sources"].items() if item["task"] == task]
        parts += [(task, scores), *(sources if len(sources) > 1 else ())]
    scored = table(
        ("task", "questions", "figure", "value", "95 % interval"),
        [row for name, scores in parts for row in _figure_rows(name, scores)],
    )
    parsed = table(("task", "answers", *_PARSING), [_parsing_row(name, scores["parsing"]) for name, scores in parts])
    return f"{scored}\n\n{parsed}"


def _figure_rows(name: str, scores: Mapping[str, Any]) -> list[tuple[str, int, str, str, str]]:
    """The rows of a task or a source, without figures that have no value."""
    rows = []
    for part, figure in _MAIN_FIGURES[scores["task"]]:
        inner = scores[part] if part else scores
        if inner[figure] is not None:
            questions = inner.get("questions", scores["questions"])
            low_high = inner.get("interval", {}).get(figure)
            interval = " to ".join(_shown(value, figure) for value in low_high) if low_high else ""
            rows.append((name, questions, f"{part}.{figure}".lstrip("."), _shown(inner[figure], figure), interval))
    return rows


def _parsing_row(name: str, parsing: Mapping[str, Any]) -> tuple[object, ...]:
    return name, parsing["answers"], *(_shown(parsing[rate], rate) if rate in parsing else "-" for rate in _PARSING)


def _shown(value: float, figure: str) -> str:
    return f"{value:.3f}" if figure in _NOT_SHARES else f"{100 * value:.1f} %"


def _scores(
    predictions: Sequence[Prediction], marked: Mapping[tuple[str, str, int], Marked], convention: str
) -> dict[str, object]:
    """The scores of predictions of one task."""
    task = predictions[0].question.task
    if task in _TEXT_SCORES:
        cut_off = mean([float(not prediction.complete) for prediction in predictions])
        parsing: dict[str, object] = {"answers": len(predictions), "cut_off": cut_off}
        return {"task": task, "parsing": parsing, **_TEXT_SCORES[task](predictions)}
    items = [marked[place(prediction)] for prediction in predictions]
    return {"task": task, "parsing": parsing_rates(items), **_BOX_SCORES[task](items, convention)}


def parsing_rates(marked: Sequence[Marked]) -> dict[str, object]:
    """How the answers of box-writing tasks were parsed.

    `strict`, `lenient` and `unparsed` add up to 1. `repeated` is the share of answers with the same box twice under one
    label, `cut_off` that of answers that ended at the limit of new tokens. `inverted_boxes` have x1 > x2 or y1 > y2.
    """
    parsed = [item.parsed for item in marked]
    boxes = [[(box.label, box.box_xyxy) for box in answer.boxes] for answer in parsed]
    return {
        "answers": len(marked),
        "strict": mean([float(answer.strict) for answer in parsed]),
        "lenient": mean([float(not answer.strict and answer.unparsed is None) for answer in parsed]),
        "unparsed": mean([float(answer.unparsed is not None) for answer in parsed]),
        "unparsed_by_reason": dict(sorted(Counter(answer.unparsed for answer in parsed if answer.unparsed).items())),
        "repeated": mean([float(len(set(answer)) < len(answer)) for answer in boxes]),
        "cut_off": mean([float(not item.prediction.complete) for item in marked]),
        "inverted_boxes": sum(x1 > x2 or y1 > y2 for answer in boxes for _, (x1, y1, x2, y2) in answer),
    }


def _by_source(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    groups: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault(prediction.question.source, []).append(prediction)
    return groups


def _rounded(value: object) -> object:
    """The same figures with at most six decimals, as machines may differ in the last bits."""
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, Mapping):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
