"""Steps left out and other learning rates: as given, in a checkpoint and back, and never again for trained steps."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.plan import Plan
from griffon_train.data.steering import Steering

from ..conftest import Run
from ..synthetic import Source, write_synthetic


@pytest.mark.parametrize(
    ("given", "skipped"),
    [
        (["3:5"], [3, 4]),
        (["3"], [3]),
        (["7:9", "3:5"], [3, 4, 7, 8]),
        (["3:5", "4:8", "8:9"], [3, 4, 5, 6, 7, 8]),
        (["0:2"], [0, 1]),
    ],
)
def test_steps_are_left_out(given: Sequence[str], skipped: list[int]) -> None:
    assert [step for step in range(12) if step in Steering.of(given, ())] == skipped
    assert Steering.of(given, ()) == Steering.of([str(step) for step in skipped], ())


def test_a_rate_holds_from_its_step_on() -> None:
    steering = Steering.of((), ("8=1e-5", "4=4e-5"))
    assert [steering.ratio(step, 2e-5) for step in (0, 3, 4, 7, 8, 99)] == [1, 1, 2, 2, 0.5, 0.5]


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--skip-steps", "5:3", "expected A:B with A below B"),
        ("--skip-steps", "5:5", "expected A:B"),
        ("--skip-steps", "-3:5", "expected A:B"),
        ("--skip-steps", "5-8", "expected A:B"),
        ("--skip-steps", "1.0:2", "expected A:B"),
        ("--lr-from", "5", "expected STEP=LR"),
        ("--lr-from", "5=", "expected STEP=LR"),
        ("--lr-from", "5=0", "expected STEP=LR"),
        ("--lr-from", "5=nan", "expected STEP=LR"),
        ("--lr-from", "5=inf", "expected STEP=LR"),
        ("--lr-from", "-1=1e-5", "expected STEP=LR"),
        ("--lr-from", "1e3=1e-5", "expected STEP=LR"),
    ],
)
def test_invalid_values_are_refused(train_cli: Run, option: str, value: str, says: str) -> None:
    ended = train_cli("run", "--stage", "custom", f"{option}={value}", "--print-config")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: {option} {value}: {says}")
    assert len(ended.stderr.splitlines()) == 1


def test_two_rates_for_one_step_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"--lr-from 5=2e-5: step 5 already has 1e-05"):
        Steering.of((), ("5=1e-5", "5=2e-5"))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan([write_synthetic(tmp_path / "set", [Source(tag="REG", rows=40)])], seed=1, global_batch=8)


TRAINED = Steering.of(("3:6",), ("4=1e-5",))


@pytest.mark.parametrize(
    "now",
    [
        TRAINED,
        Steering.of(("3:6", "8:9"), ("4=1e-5", "8=2e-5")),
        Steering.of(("3:6", "10:99"), ("4=1e-5",)),
    ],
)
def test_settings_of_future_steps_may_change(plan: Plan, now: Steering) -> None:
    state = orjson.loads(orjson.dumps(cursor_state(plan, 8, TRAINED)))
    assert restore_cursor(state, plan, now) == 8


@pytest.mark.parametrize(
    ("now", "given"),
    [
        (Steering(), "neither --skip-steps nor --lr-from is given"),
        (Steering.of(("3:5",), ("4=1e-5",)), "--skip-steps 3:5 --lr-from 4=1e-05 is given"),
        (Steering.of(("3:6", "7:9"), ("4=1e-5",)), "--skip-steps 3:6 --skip-steps 7:8 --lr-from 4=1e-05 is given"),
        (Steering.of(("3:6",), ("4=2e-5",)), "--skip-steps 3:6 --lr-from 4=2e-05 is given"),
        (Steering.of(("3:6",), ("4=1e-5", "7=1e-6")), "--lr-from 7=1e-06 is given"),
    ],
)
def test_settings_of_past_steps_may_not_change(plan: Plan, now: Steering, given: str) -> None:
    with pytest.raises(SettingsError) as refused:
        restore_cursor(cursor_state(plan, 8, TRAINED), plan, now)
    message = str(refused.value)
    assert message.startswith("the steps before 8 were trained with --skip-steps 3:6 --lr-from 4=1e-05, but ")
    assert given in message
    assert message.endswith("new ones may only affect steps from 8 on")


def test_steps_to_come_are_not_in_the_cursor(plan: Plan) -> None:
    """A checkpoint of a version without steering has the same cursor."""
    assert cursor_state(plan, 3, TRAINED) == cursor_state(plan, 3)
    assert restore_cursor(cursor_state(plan, 3), plan, TRAINED) == 3
    with pytest.raises(
        SettingsError, match="were trained with neither --skip-steps nor --lr-from, but --skip-steps 3:4"
    ):
        restore_cursor(cursor_state(plan, 4), plan, TRAINED)
