"""A function of the user's that is given every figure. What it raises is said and costs the run nothing."""

import importlib
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from griffon_shards.support.errors import SettingsError

Call = Callable[[int, Mapping[str, Any]], object]
"""Called with a step's number and its figures."""

TRIES = 10
"""How often a hook may fail in a row."""

_DOUBTFUL = 3  # failures after which it is tried whether the figures are at fault


class Hook:
    """Gives the figures to a function in their order, each until it has taken them.

    After a failure the next try comes a step later, then two, then four: a connection that is lost is back by then, and
    a function that waits a minute for it holds the run up few times. After `TRIES` in a row it is called no more.
    """

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        """Import the function.

        Args:
            name: as module:function.
            say: gets what goes wrong, in lines.

        Raises:
            SettingsError: there is no such function.
        """
        self._name, self._say = name, say
        self._call: Call | None = imported(name)
        self._waiting: deque[tuple[int, Mapping[str, Any]]] = deque()
        self._failures = self._passed_by = 0

    def give(self, step: int, figures: Mapping[str, Any]) -> None:
        """Give the function a step's figures, after those that it has not taken yet."""
        if self._call is None:
            return
        self._waiting.append((step, dict(figures)))
        self._passed_by += 1
        if not self._failures or self._passed_by >= 2 ** (self._failures - 1):
            self._try()

    def close(self) -> None:
        """Try once more to give it what it has not taken."""
        if self._waiting:
            self._try()
        if self._waiting:
            self._say(f"--log-hook {self._name}: has not been given {self._steps()}; metrics.jsonl has all of them")

    def _try(self) -> None:
        self._passed_by = 0
        while self._waiting:
            error = self._error_of(self._waiting[0])
            if error is not None:
                if self._failures + 1 < _DOUBTFUL or len(self._waiting) == 1 or self._error_of(self._waiting[1]):
                    self._failed(error)
                    return
                step = self._waiting[0][0]
                self._say(f"{self._told(error)}; it takes other figures, so those of step {step} are left out")
                self._waiting.popleft()
            self._waiting.popleft()
            if self._failures:
                self._say(f"--log-hook {self._name}: works again")
                self._failures = 0

    def _error_of(self, figures: tuple[int, Mapping[str, Any]]) -> Exception | None:
        assert self._call is not None
        try:
            self._call(*figures)
        except Exception as error:  # noqa: BLE001 - it is the user's, and may raise whatever there is
            return error
        return None

    def _told(self, error: Exception) -> str:
        return f"--log-hook {self._name}: {type(error).__name__}: {' '.join(str(error).split())}"

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        told = self._told(error)
        if self._failures == 1:
            self._say(f"{told}; the run goes on, and it is given {self._steps()} again later")
        if self._failures == TRIES:
            self._say(
                f"{told}; it failed {TRIES} times in a row and is called no more; metrics.jsonl has all figures, also "
                f"of {self._steps()}, which it has not taken"
            )
            self._call = None
            self._waiting.clear()

    def _steps(self) -> str:
        first, last = self._waiting[0][0], self._waiting[-1][0]
        return f"step {first}" if first == last else f"steps {first} to {last}"


def imported(name: str) -> Call:
    """A function by its name, as module:function.

    Raises:
        SettingsError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        found: Call = getattr(importlib.import_module(module), function)
    except Exception as error:  # noqa: BLE001 - it runs what is the user's, which may raise whatever there is
        raise SettingsError(
            f"--log-hook {name}: {type(error).__name__}: {error}; give it as module:function, on PYTHONPATH"
        ) from None
    if not callable(found):
        raise SettingsError(f"--log-hook {name}: expected a function, got {type(found).__name__}")
    return found
