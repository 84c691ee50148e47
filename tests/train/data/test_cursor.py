"""The cursor: through any checkpoint and back; and of another plan, a message that names both sides."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import SettingsError
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.lengths import Lengths, Table
from griffon_train.data.plan import Plan

from ..synthetic import Source, write_synthetic

SOURCES = [Source(tag="REG", rows=40), Source(tag="DET", rows=30, weight="0.5")]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    return write_synthetic(tmp_path_factory.mktemp("cursor") / "set", SOURCES)


def plan_of(frozen: FrozenSet, **changes: Any) -> Plan:  # noqa: ANN401
    return Plan([frozen], **{"seed": 1, "global_batch": 8, "window": 4, **changes})


def through_json(state: dict[str, Any]) -> Any:  # noqa: ANN401
    return orjson.loads(orjson.dumps(state))


def through_torch(state: dict[str, Any]) -> Any:  # noqa: ANN401
    file = BytesIO()
    torch.save({"cursor": state, "step": 3}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)["cursor"]


@pytest.mark.parametrize("through", [dict, through_json, through_torch])
@pytest.mark.parametrize("steps_done", [0, 1, 12345, 2**40])
def test_a_cursor_is_read_as_it_was_written(frozen: FrozenSet, steps_done: int, through: Callable[[Any], Any]) -> None:
    assert (
        restore_cursor(through(cursor_state(plan_of(frozen), steps_done)), plan_of(FrozenSet(frozen.root)))
        == steps_done
    )


@pytest.mark.parametrize(
    ("changes", "was", "now"),
    [
        ({"seed": 2}, "seed was 1", "is 2"),
        ({"global_batch": 16}, "global_batch was 8", "is 16"),
        ({"grouping": "task"}, "grouping was 'none'", "is 'task'"),
        ({"window": 5}, "window was 4", "is 5"),
        ({"weights": {"DET": "2/3"}}, "weights was [{'REG': '1', 'DET': '1/2'}]", "is [{'REG': '1', 'DET': '2/3'}]"),
    ],
)
@pytest.mark.parametrize("through", [dict, through_json])
def test_other_settings_are_refused_by_name_and_values(
    frozen: FrozenSet, changes: dict[str, Any], was: str, now: str, through: Callable[[Any], Any]
) -> None:
    state = through(cursor_state(plan_of(frozen), 7))
    with pytest.raises(SettingsError, match="another plan") as refused:
        restore_cursor(state, plan_of(frozen, **changes))
    assert f"{was} and {now}" in str(refused.value)
    assert str(refused.value).count(" was ") == 1  # what is the same is not said


def test_another_set_is_refused_by_both_digests(frozen: FrozenSet, tmp_path: Path) -> None:
    other = write_synthetic(tmp_path / "other", SOURCES, content="1")
    with pytest.raises(SettingsError, match="sets was") as refused:
        restore_cursor(cursor_state(plan_of(frozen), 7), plan_of(other))
    assert f"sets was ['{frozen.lock.digest}'] and is ['{other.lock.digest}']" in str(refused.value)


def test_other_lengths_are_refused_by_both_hashes(frozen: FrozenSet) -> None:
    counts = np.ones((len(frozen), 1), np.uint32)
    table = Table(path=Path("t"), sha256="", of_set=frozen.lock.digest, chat="", tokenizer="", counts=counts)
    counted = [Lengths(identity=[letter * 64], sets=[frozen], tables=[table]) for letter in "ab"]
    for before, after in ((None, counted[0]), (counted[0], None), (counted[0], counted[1])):
        with pytest.raises(SettingsError, match="lengths was") as refused:
            restore_cursor(cursor_state(plan_of(frozen, lengths=before), 7), plan_of(frozen, lengths=after))
        names = ["'estimate'" if lengths is None else repr(lengths.identity) for lengths in (before, after)]
        assert f"lengths was {names[0]} and is {names[1]}" in str(refused.value)


def test_all_differences_are_reported_at_once(frozen: FrozenSet) -> None:
    with pytest.raises(SettingsError, match="seed was 1 and is 2; global_batch was 8 and is 4"):
        restore_cursor(cursor_state(plan_of(frozen), 7), plan_of(frozen, seed=2, global_batch=4))


def test_a_digest_of_other_code_is_refused_by_both_digests(frozen: FrozenSet) -> None:
    plan = plan_of(frozen)
    with pytest.raises(SettingsError, match="another plan") as refused:
        restore_cursor({**cursor_state(plan, 7), "plan_digest": "f" * 64}, plan)
    assert "f" * 64 in str(refused.value)
    assert plan.digest in str(refused.value)


@pytest.mark.parametrize("lacking", ["steps_done", "plan_digest", "plan"])
def test_what_a_cursor_lacks_is_named(frozen: FrozenSet, lacking: str) -> None:
    state = cursor_state(plan_of(frozen), 7)
    del state[lacking]
    with pytest.raises(SettingsError, match=f"not a cursor.*{lacking}"):
        restore_cursor(state, plan_of(frozen))


@pytest.mark.parametrize("steps_done", [-1, 1.5, "7", None, [7], True])
def test_numbers_of_steps_that_are_not_counts_are_refused(frozen: FrozenSet, steps_done: Any) -> None:  # noqa: ANN401
    state = {**cursor_state(plan_of(frozen), 0), "steps_done": steps_done}
    with pytest.raises(SettingsError, match="not a cursor"):
        restore_cursor(state, plan_of(frozen))


@pytest.mark.parametrize("plan", [None, [], "plan", 3])
def test_an_invalid_plan_is_refused(frozen: FrozenSet, plan: Any) -> None:  # noqa: ANN401
    state = {"steps_done": 3, "plan_digest": "f" * 64, "plan": plan}
    with pytest.raises(SettingsError, match=r"not a cursor|another plan"):
        restore_cursor(state, plan_of(frozen))


@pytest.mark.parametrize("state", [{}, [], None, "cursor", 7])
def test_what_is_not_a_cursor_at_all_is_refused(frozen: FrozenSet, state: Any) -> None:  # noqa: ANN401
    with pytest.raises(SettingsError, match="not a cursor"):
        restore_cursor(state, plan_of(frozen))
