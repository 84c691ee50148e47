"""Calls a user's function with every step's figures. Its exceptions are reported and do not end the run."""

import importlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from griffon_shards.support.errors import SettingsError

Call = Callable[[int, Mapping[str, Any]], object]
"""Called with a step's number and its figures."""

TRIES = 10
"""Number of consecutive failures after which a hook is no longer called."""

_DOUBTFUL = 3  # consecutive failures after which the next figures are tried, in case these are at fault


class Hook:
    """Calls a function with each step's figures in order, and retries figures whose call failed.

    After a failure the next try comes one step later, then two, then four: a lost connection has time to come back, and
    a function that waits a minute for it delays the run only a few times. After `TRIES` consecutive failures it is no
    longer called.
    """

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        """Import the function.

        Args:
            name: the function, as module:function.
            say: called with a message for each problem.

        Raises:
            SettingsError: there is no such function.
        """
        self._name, self._say = name, say
        self._call: Call | None = imported(name)
        self._waiting: deque[tuple[int, Mapping[str, Any]]] = deque()
        self._failures = self._passed_by = 0

    def give(self, step: int, figures: Mapping[str, Any]) -> None:
        """Queue a step's figures and call the function with all that are queued, unless it is time to wait."""
        if self._call is None:
            return
        self._waiting.append((step, dict(figures)))
        self._passed_by += 1
        if not self._failures or self._passed_by >= 2 ** (self._failures - 1):
            self._try()

    def close(self) -> None:
        """Try a last time to deliver the queued figures."""
        if self._waiting:
            self._try()
        if self._waiting:
            self._say(f"--log-hook {self._name}: did not get {self._steps()}; metrics.jsonl has all of them")

    def _try(self) -> None:
        self._passed_by = 0
        while self._waiting:
            error = self._error_of(self._waiting[0])
            if error is not None:
                if self._failures + 1 < _DOUBTFUL or len(self._waiting) == 1 or self._error_of(self._waiting[1]):
                    self._failed(error)
                    return
                step = self._waiting[0][0]
                self._say(f"{self._message(error)}; it accepts other figures, so step {step} is skipped")
                self._waiting.popleft()
            self._waiting.popleft()
            if self._failures:
                self._say(f"--log-hook {self._name}: works again")
                self._failures = 0

    def _error_of(self, figures: tuple[int, Mapping[str, Any]]) -> Exception | None:
        assert self._call is not None
        try:
            self._call(*figures)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return error
        return None

    def _message(self, error: Exception) -> str:
        return f"--log-hook {self._name}: {type(error).__name__}: {' '.join(str(error).split())}"

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        message = self._message(error)
        if self._failures == 1:
            self._say(f"{message}; the run continues, and {self._steps()} will be retried")
        if self._failures == TRIES:
            self._say(
                f"{message}; it failed {TRIES} times in a row and is no longer called; it did not get {self._steps()}; "
                "metrics.jsonl has all figures"
            )
            self._call = None
            self._waiting.clear()

    def _steps(self) -> str:
        first, last = self._waiting[0][0], self._waiting[-1][0]
        return f"step {first}" if first == last else f"steps {first} to {last}"


def imported(name: str) -> Call:
    """Import a function by its name, module:function.

    Raises:
        SettingsError: it cannot be imported, or is not a function.
    """
    module, _, function = name.partition(":")
    try:
        found: Call = getattr(importlib.import_module(module), function)
    except Exception as error:  # noqa: BLE001 - importing runs the user's code, which may raise anything
        raise SettingsError(
            f"--log-hook {name}: {type(error).__name__}: {error}; give it as module:function, on PYTHONPATH"
        ) from None
    if not callable(found):
        raise SettingsError(f"--log-hook {name}: expected a function, got {type(found).__name__}")
    return found
