"""Scores of VISJ."""

from math import sqrt

import pytest

from griffon_shards.grammar import format_answer
from griffon_train.evaluation.counting import counting_scores
from griffon_train.evaluation.matching import mark

from .made_up import CAT, DOG, FAR, predicted


def test_known_answers_have_their_known_scores() -> None:
    truth = format_answer([("", CAT), ("", DOG)], "text")
    cases = [  # F1 at IoU 0.5, number of answered boxes, whether the number is exact
        (truth, True, 1.0, 2, True),
        (format_answer([("", DOG), ("", CAT)], "text"), True, 1.0, 2, True),
        (format_answer([("", CAT), ("", FAR)], "text"), True, 0.5, 2, True),
        (format_answer([("", CAT)] * 5, "text"), True, 2 / 7, 5, False),
        ("None", True, 0.0, 0, False),
        ("two of them", True, 0.0, 0, False),
        (truth, False, 1.0, 2, False),
        (truth + "&[0.1", False, 1.0, 2, False),
    ]
    marked = [
        mark(predicted("VISJ", truth, answer, key=str(key), complete=complete))
        for key, (answer, complete, *_) in enumerate(cases)
    ]
    scores = counting_scores(marked, "gt")
    assert scores["f1@0.5"] == pytest.approx(sum(f1 for *_, f1, _, _ in cases) / len(cases))
    assert scores["exact_set"] == 2 / 8
    assert scores["count_exact"] == sum(exact for *_, exact in cases) / len(cases)
    errors = [number - 2 for *_, number, _ in cases]
    assert scores["count_mae"] == pytest.approx(sum(map(abs, errors)) / len(cases))
    assert scores["count_rmse"] == pytest.approx(sqrt(sum(error**2 for error in errors) / len(cases)))
    assert marked[3].f1(0.5, "gt") == 2 / 7


def test_an_unparsed_answer_counts_nothing_and_is_never_exact() -> None:
    """Also where the true number is 0, which no frozen set has."""
    scores = counting_scores([mark(predicted("VISJ", "None", "nothing there"))], "gt")
    assert (scores["count_exact"], scores["count_mae"], scores["f1@0.5"]) == (0.0, 0.0, 0.0)


def test_no_questions_have_no_scores() -> None:
    scores = counting_scores([], "gt")
    assert scores["f1@0.5"] is scores["count_exact"] is scores["count_rmse"] is None
