"""Scores of LAZY: conversations in plain text."""

from collections.abc import Sequence
from math import fsum, isfinite

from griffon_train.evaluation.means import means
from griffon_train.evaluation.predictions import Prediction

SHORT_WORDS = 5
"""True answers of at most so many words are scored by exact match; longer ones have many right wordings."""


def text_scores(predictions: Sequence[Prediction]) -> dict[str, object]:
    """The loss per token of the true answers, in nats, and the share of exact matches among short answers."""
    losses = [item.loss for item in predictions if item.loss is not None and isfinite(item.loss)]
    targets = sum(item.targets for item in predictions if item.loss is not None and isfinite(item.loss))
    short = [item for item in predictions if is_short(item)]
    samples = [(item.question.set, item.question.key) for item in short]
    return {
        "questions": len(predictions),
        "loss_per_token": fsum(losses) / targets if targets else None,
        "targets": targets,
        "without_loss": len(predictions) - len(losses),
        "short_answers": {
            "questions": len(short),
            **means({"exact_match": [float(is_exact(item)) for item in short]}, samples),
        },
    }


def is_short(prediction: Prediction) -> bool:
    """Whether the true answer has at most `SHORT_WORDS` words."""
    return len(prediction.question.truth.split()) <= SHORT_WORDS


def is_exact(prediction: Prediction) -> bool:
    """Whether a complete answer equals the true one, but for case, spaces and a full stop at the end."""
    answer, truth = comparable(prediction.answer), comparable(prediction.question.truth)
    return prediction.complete and answer == truth and answer != ""


def comparable(text: str) -> str:
    """The text with case folded, spaces normalized and without a full stop at the end."""
    return " ".join(text.split()).casefold().rstrip(".").rstrip()
