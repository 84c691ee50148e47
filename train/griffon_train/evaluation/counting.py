"""Scores of VISJ: finding and counting the objects that are like a region."""

from collections.abc import Sequence
from math import sqrt

from griffon_train.evaluation.matching import Marked, samples_of
from griffon_train.evaluation.means import mean, means


def counting_scores(marked: Sequence[Marked], convention: str) -> dict[str, object]:
    """Scores of questions of VISJ: F1 of the boxes, and the number of boxes against the true number.

    An unparsed answer has F1 0, counts as no boxes, and its number is never exact.
    """
    errors = [len(item.parsed.boxes) - len(item.truth) for item in marked]
    figures: dict[str, list[float]] = {
        **{f"f1@{threshold}": [item.f1(threshold, convention) for item in marked] for threshold in (0.5, 0.75)},
        "exact_set": [float(item.exact(0.5, convention)) for item in marked],
        "count_exact": [
            float(not error and item.parsed.unparsed is None and item.prediction.complete)
            for item, error in zip(marked, errors, strict=True)
        ],
        "count_mae": [float(abs(error)) for error in errors],
    }
    squared = mean([float(error * error) for error in errors])
    return {
        "questions": len(marked),
        **means(figures, samples_of(marked)),
        "count_rmse": None if squared is None else sqrt(squared),
    }
