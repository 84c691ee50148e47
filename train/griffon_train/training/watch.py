"""What may come from outside while a run goes on: signals, a wish for a checkpoint, and a standstill."""

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

SAVE_NOW = "save-now"
"""A file of this name in a run's folder asks for a checkpoint at the end of the step."""


@dataclass(slots=True)
class Wishes:
    """What signals have asked this rank for; all ranks agree on it when the step ends."""

    save: bool = False
    stop: bool = False

    def look(self, run: Path) -> None:
        """See whether somebody has put the file there; it is taken away."""
        path = run / SAVE_NOW
        if path.exists():
            path.unlink(missing_ok=True)
            self.save = True


@contextmanager
def listening() -> Iterator[Wishes]:
    """Take SIGTERM for a wish to stop and SIGUSR1 for one to save, until the end."""
    wishes = Wishes()

    def heard(number: int, _frame: FrameType | None) -> None:
        wishes.stop = wishes.stop or number == signal.SIGTERM
        wishes.save = wishes.save or number == signal.SIGUSR1

    before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Watchdog:
    """Ends this process, with a message and the stacks of its threads, when nothing has come to an end for too long."""

    def __init__(self, rank: int, stall_s: float) -> None:
        self._rank, self._stall_s = rank, stall_s
        self._doing = "starting"
        self._fed = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def now(self, doing: str) -> None:
        """Something came to an end; this is what comes next."""
        self._doing = doing
        self._fed.set()

    def close(self) -> None:
        """Stop watching."""
        self._over = True
        self._fed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over:
            if self._fed.wait(self._stall_s):
                self._fed.clear()
                continue
            sys.stderr.write(
                f"error: rank {self._rank}: nothing came to an end in {self._stall_s:.0f} s, {self._doing}; this rank "
                "or another hangs; below is what it was doing. The same command goes on from the last checkpoint; "
                "if a step may take longer, raise --stall-s\n"
            )
            faulthandler.dump_traceback(file=sys.stderr)
            os._exit(1)  # a thread that hangs in a library cannot be asked to end
