"""A custom hook that fails: the steps that it is given in the end, and what is logged about it."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.training.log_hook import TRIES, Hook, imported

STEPS = 2000


class Calls:
    """A hook, and what came of a run with it."""

    def __init__(self) -> None:
        self.now = self.count = 0
        self.taken: list[int] = []
        self.said: list[str] = []
        self.error: Callable[[int], BaseException | None] = lambda _step: None

    def hook(self, step: int, figures: Mapping[str, Any]) -> None:
        self.count += 1
        if (error := self.error(step)) is not None:
            raise error
        assert figures == {"step": step}
        self.taken.append(step)

    def run(self) -> None:
        hook = Hook("my_hook:hook", self.said.append)
        for self.now in range(STEPS):
            hook.give(self.now, {"step": self.now})
        hook.close()


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    (tmp_path / "my_hook.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    module: Any = __import__("my_hook")
    module.hook = (result := Calls()).hook
    yield result
    del sys.modules["my_hook"]


@pytest.mark.parametrize("lost", [1, 2, 5, 100])
def test_a_connection_that_comes_back(lost: int, calls: Calls) -> None:
    """Steps during which it was lost are given later, in order. The loss and the return are each logged once."""
    calls.error = lambda _step: ConnectionError("no\nanswer") if 50 <= calls.now < 50 + lost else None
    calls.run()
    assert calls.taken == list(range(STEPS))
    assert calls.said == [
        "--log-hook my_hook:hook: ConnectionError: no answer; the run continues, and step 50 will be retried",
        "--log-hook my_hook:hook: works again",
    ]
    assert calls.count < STEPS + 2 * TRIES


def test_a_connection_that_stays_lost(calls: Calls) -> None:
    calls.error = lambda _step: TimeoutError() if calls.now >= 50 else None
    calls.run()
    assert calls.taken == list(range(50))
    lost, off = calls.said
    assert lost.endswith("the run continues, and step 50 will be retried")
    assert f"it failed {TRIES} times in a row and is no longer called; it did not get steps 50" in off
    assert calls.count < 50 + 2 * TRIES, "a call that waits for a connection is not made at each step"


def test_a_hook_that_raises_keyerror_skips_the_step(calls: Calls) -> None:
    """A hook may not know the names of validation figures: only those steps are skipped."""
    calls.error = lambda step: KeyError("loss") if step in (7, 300) else None
    calls.run()
    assert calls.taken == [step for step in range(STEPS) if step not in (7, 300)]
    assert [line.rpartition(", so ")[2] for line in calls.said if "is skipped" in line] == [
        "step 7 is skipped",
        "step 300 is skipped",
    ]


def test_a_connection_that_is_lost_at_the_end(calls: Calls) -> None:
    calls.error = lambda _step: ConnectionError("gone") if calls.now >= STEPS - 2 else None
    calls.run()
    assert calls.taken == list(range(STEPS - 2))
    assert calls.said[-1].endswith(f"did not get steps {STEPS - 2} to {STEPS - 1}; metrics.jsonl has all of them")


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit])
def test_exceptions_that_end_the_process_end_the_run(ends: type[BaseException], calls: Calls) -> None:
    calls.error = lambda step: ends() if step == 3 else None
    with pytest.raises(ends):
        calls.run()
    assert calls.now == 3


@pytest.mark.parametrize("source", ["def hook(:", "import no_such_package", "1 / 0", "hook = 7", ""])
def test_a_hook_that_cannot_be_imported(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error in its module is reported in one line, at the start."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bad_hook.py").write_text(source)
    with pytest.raises(SettingsError) as caught:
        imported("bad_hook:hook")
    assert str(caught.value).startswith("--log-hook bad_hook:hook: ")
    assert "\n" not in str(caught.value)
    sys.modules.pop("bad_hook", None)
