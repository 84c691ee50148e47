"""Scores of REG: describing what is in a box."""

import re
from collections.abc import Sequence

from pycocoevalcap.cider.cider import Cider

from griffon_shards.grammar import parse_boxes_in
from griffon_shards.types import BOX_STYLES
from griffon_train.evaluation.means import means
from griffon_train.evaluation.predictions import Prediction, Question
from griffon_train.evaluation.text import is_exact

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def captioning_scores(predictions: Sequence[Prediction]) -> dict[str, object]:
    """CIDEr of the expressions, times 1 (100 % of others' tables is 1.0 here), and the share of exact matches.

    CIDEr has an entry for each box: the answer to its first question, and the true answers of all its questions.
    """
    of_boxes: dict[tuple[object, ...], list[Prediction]] = {}
    for prediction in predictions:
        of_boxes.setdefault(_described(prediction.question), []).append(prediction)
    answers = [items[0].answer for items in of_boxes.values()]
    references = [[item.question.truth for item in items] for items in of_boxes.values()]
    exact = {"exact_match": [float(is_exact(prediction)) for prediction in predictions]}
    return {
        "questions": len(predictions),
        "boxes": len(of_boxes),
        "cider": cider(answers, references),
        **means(exact, [(prediction.question.set, prediction.question.key) for prediction in predictions]),
    }


def _described(question: Question) -> tuple[object, ...]:
    """The box that a question asks to describe: that of its text in its image, for each source apart."""
    boxes = [box for style in BOX_STYLES for box in parse_boxes_in(question.question, style)]
    if len(boxes) != 1:
        return question.set, question.key, question.round
    return question.set, question.source, question.image, boxes[0]


def cider(answers: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """CIDEr of answers with one or several references each, computed by pycocoevalcap; None without answers.

    Its tokenizer needs Java and is not used: words are letters, digits and inner apostrophes, in lower case.
    """
    tokenized = [[" ".join(words(text)) for text in of_answer] for of_answer in references]
    if not any(any(of_answer) for of_answer in tokenized):
        return 0.0 if answers else None
    score, _ = Cider().compute_score(
        dict(enumerate(tokenized)), {number: [" ".join(words(answer))] for number, answer in enumerate(answers)}
    )
    return float(score)


def words(text: str) -> list[str]:
    """The words of a text, in lower case and without punctuation."""
    return _WORD.findall(text.casefold())
