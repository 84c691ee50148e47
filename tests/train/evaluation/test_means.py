"""Intervals of means."""

import random

import pytest

from griffon_train.evaluation.means import intervals, mean


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    draws = random.Random(0)
    covered, width = 0, 0.0
    for _ in range(60):
        values = [float(draws.random() < 0.7) for _ in range(200)]
        low, high = intervals({"share": values}, range(200))["share"]
        covered += low <= 0.7 <= high
        width += (high - low) / 60
        assert low <= sum(values) / 200 <= high
    assert covered >= 0.86 * 60  # binomial: 95 % less three standard deviations
    assert width == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 200) ** 0.5, rel=0.1)


def test_questions_of_one_sample_do_not_narrow_the_interval() -> None:
    draws = random.Random(1)
    values = [float(draws.random() < 0.5) for _ in range(100)]
    low, high = intervals({"share": values}, range(100))["share"]
    tenfold = intervals({"share": values * 10}, [*range(100)] * 10)["share"]
    assert tenfold == pytest.approx((low, high))
    narrowed = intervals({"share": values * 10}, range(1000))["share"]
    assert narrowed[1] - narrowed[0] < (high - low) / 2


def test_figures_are_resampled_together_and_the_same_every_time() -> None:
    values = [0.0, 1.0, 0.5, 0.25]
    both = intervals({"a": values, "b": [1 - value for value in values]}, "wxyz")
    assert both == intervals({"a": values, "b": [1 - value for value in values]}, "wxyz")
    assert both["b"] == pytest.approx((1 - both["a"][1], 1 - both["a"][0]))


def test_few_values() -> None:
    assert intervals({"a": []}, []) == {} and mean([]) is None
    assert intervals({"a": [0.3]}, ["k"])["a"] == pytest.approx((0.3, 0.3))
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)
