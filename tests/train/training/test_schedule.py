"""The learning rate over the steps of a run."""

import pytest

from griffon_train.config.groups import OptimizerSettings
from griffon_train.training.engine import learning_rate_factor

STEPS = 10


def factors(**given: object) -> list[float]:
    settings = OptimizerSettings(**given)  # type: ignore[arg-type]
    return [learning_rate_factor(step, STEPS, settings) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_a_warmup_in_steps_is_the_one_of_that_share_of_the_run(schedule: str) -> None:
    in_steps = factors(schedule=schedule, warmup_ratio=None, warmup_steps=4)
    assert in_steps == factors(schedule=schedule, warmup_ratio=0.4)
    assert in_steps[:5] == [0.25, 0.5, 0.75, 1, 1]


def test_no_step_of_warmup_begins_at_the_peak() -> None:
    assert factors(schedule="constant", warmup_ratio=None, warmup_steps=0) == [1.0] * STEPS


def test_a_warmup_longer_than_the_run_is_cut_off() -> None:
    assert factors(warmup_ratio=None, warmup_steps=20) == [(step + 1) / 20 for step in range(STEPS)]
