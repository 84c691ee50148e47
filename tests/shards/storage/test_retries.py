"""Attempts and the pauses between them, with a clock that only the pauses move."""

from collections.abc import Callable

import pytest

from griffon_shards.storage.client import retried
from griffon_shards.storage.errors import StorageError
from griffon_shards.support.errors import SettingsError

URL = "s3://bucket/a"


class Clock:
    """Pauses move it; nothing sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses_s: list[float] = []

    def time(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


def failing(*errors: Exception, then: str = "data") -> Callable[[], str]:
    """An operation that raises these errors, one at each call, and then returns."""
    waiting = list(errors)

    def operation() -> str:
        if waiting:
            raise waiting.pop(0)
        return then

    return operation


def test_an_operation_that_succeeds_at_last_returns_its_result() -> None:
    clock = Clock()
    errors = [ConnectionResetError(), TimeoutError(), ConnectionResetError()]
    assert retried(URL, failing(*errors), wait=clock.wait, clock=clock.time) == "data"
    assert len(clock.pauses_s) == 3
    assert all(0 <= pause_s <= 0.2 * 2**attempt for attempt, pause_s in enumerate(clock.pauses_s, 1))


def test_it_gives_up_within_a_minute() -> None:
    clock = Clock()

    def operation() -> None:
        raise ConnectionResetError("reset by peer")

    with pytest.raises(StorageError, match=r"s3://bucket/a: still fails after \d+ attempts in \d+ s \(Connection"):
        retried(URL, operation, wait=clock.wait, clock=clock.time)
    assert 20 < clock.now_s - 1000 < 60
    assert len(clock.pauses_s) < 200
    assert len(set(clock.pauses_s)) > 5  # jitter
    assert max(clock.pauses_s) <= 8


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileNotFoundError(), FileNotFoundError),
        (FileExistsError(), FileExistsError),
        (PermissionError(), StorageError),
        (ValueError("of the library"), StorageError),
        (SettingsError("a package is missing"), SettingsError),
        (StorageError("known already"), StorageError),
    ],
    ids=repr,
)
def test_final_errors_are_raised_at_once(error: Exception, raised: type[Exception]) -> None:
    clock = Clock()
    with pytest.raises(raised):
        retried(URL, failing(error), wait=clock.wait, clock=clock.time)
    assert not clock.pauses_s


def test_a_missing_object_is_named() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        retried(URL, failing(FileNotFoundError("of the library")))
    assert caught.value.filename == URL
