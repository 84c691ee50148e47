"""Scores of REG: describing what is in a box."""

import re
from collections.abc import Sequence

from pycocoevalcap.cider.cider import Cider

from griffon_train.evaluation.means import means
from griffon_train.evaluation.predictions import Prediction
from griffon_train.evaluation.text import is_exact

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def captioning_scores(predictions: Sequence[Prediction]) -> dict[str, object]:
    """CIDEr of the expressions, times 1 (100 % of others' tables is 1.0 here), and the share of exact matches."""
    questions = [prediction.question for prediction in predictions]
    exact = {"exact_match": [float(is_exact(prediction)) for prediction in predictions]}
    return {
        "questions": len(predictions),
        "cider": cider([item.answer for item in predictions], [question.truth for question in questions]),
        **means(exact, [(question.set, question.key) for question in questions]),
    }


def cider(answers: Sequence[str], references: Sequence[str]) -> float | None:
    """CIDEr of answers with one reference each, computed by pycocoevalcap; None without answers.

    Its tokenizer needs Java and is not used: words are letters, digits and inner apostrophes, in lower case.
    """
    tokenized = [" ".join(words(reference)) for reference in references]
    if not any(tokenized):
        return 0.0 if answers else None
    score, _ = Cider().compute_score(
        {number: [reference] for number, reference in enumerate(tokenized)},
        {number: [" ".join(words(answer))] for number, answer in enumerate(answers)},
    )
    return float(score)


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without punctuation."""
    return _WORD.findall(text.casefold())
