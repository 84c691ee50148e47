"""Scores of LAZY."""

from math import nan

import pytest

from griffon_train.evaluation.text import text_scores

from .made_up import predicted


def test_the_loss_is_that_of_all_tokens_together() -> None:
    scores = text_scores(
        [
            predicted("LAZY", "a", "a", loss=2.0, targets=1),
            predicted("LAZY", "b", "b", key="l", loss=3.0, targets=9),
            predicted("LAZY", "c", "c", key="m", loss=nan, targets=5),
            predicted("LAZY", "d", "d", key="n"),
        ]
    )
    assert (scores["loss_per_token"], scores["targets"], scores["without_loss"]) == (pytest.approx(0.5), 10, 2)


def test_only_short_answers_are_matched() -> None:
    long = "a man walks his dog home"
    cases = [("Yes", "yes.", 1), ("Yes", "no", 0), ("-5", "5", 0), ("3.5", "35", 0), ("a b c d e", "A  b c d e", 1)]
    predictions = [predicted("LAZY", truth, answer, key=f"{number}") for number, (truth, answer, _) in enumerate(cases)]
    scores = text_scores([*predictions, predicted("LAZY", long, long, key="long")])
    short = scores["short_answers"]
    assert isinstance(short, dict)
    assert (short["questions"], short["exact_match"]) == (5, sum(right for *_, right in cases) / 5)


def test_no_questions_have_no_scores() -> None:
    scores = text_scores([predicted("LAZY", "a man walks his dog home", "no")])
    short = scores["short_answers"]
    assert isinstance(short, dict)
    assert scores["loss_per_token"] is short["exact_match"] is None
