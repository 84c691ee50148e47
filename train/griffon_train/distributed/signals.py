"""Requests to a running process: signals to stop or save, and a file that asks for a checkpoint."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from griffon_shards.support.logs import Formatter
from griffon_shards.support.processes import outlive_parent
from griffon_train.data.worker_process import STOPS

SAVE_NOW = "save-now"
"""A file of this name in a run's folder requests a checkpoint at the end of the step."""

_OVER = 0  # tells the listener to end; no signal has this number

_ONE_CTRL_C_S = 1.0  # srun and torchrun may both forward the same Ctrl-C


class Stopped(Exception):
    """A rank was asked to stop; every rank raises this at the same point.

    Attributes:
        number: number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Requests:
    """Requests that this rank has received.

    Until `defer` is called, a request to stop ends the process at once, as nothing would be lost.

    Attributes:
        save: whether a checkpoint is requested.
    """

    def __init__(self) -> None:
        self.save = False
        self._deferred = False
        self._asked = threading.Event()
        self._number, self._at_s = 0, 0.0

    @property
    def stop(self) -> int:
        """Number of the signal that requested to stop, or 0."""
        return self._number

    def await_stop(self, patience_s: float) -> bool:
        """Wait up to `patience_s` for a request to stop; return whether there is one."""
        return self._asked.wait(patience_s)

    def defer(self) -> None:
        """Defer requests to stop from now on, because there are steps to save first."""
        self._deferred = True

    def look(self, run: Path) -> None:
        """Check for the file that requests a checkpoint, and delete it."""
        path = run / SAVE_NOW
        if path.exists():
            path.unlink(missing_ok=True)
            self.save = True

    def heard(self, number: int) -> None:
        """Handle a signal. The listener thread calls this, so that no library can swallow or delay it."""
        if number == signal.SIGUSR1:
            self.save = True
        if number not in STOPS:
            return
        now_s, name = time.monotonic(), signal.Signals(number).name
        if not self._deferred:
            _end(number, f"stopped by {name} before the first step; nothing is lost")
        if not self._number:
            self._number, self._at_s = number, now_s
            self._asked.set()
            _say(f"{name}: saving a checkpoint, then the run ends; press Ctrl-C to end it now without saving")
        elif number == signal.SIGINT and now_s - self._at_s > _ONE_CTRL_C_S:
            _end(number, "ended without saving; rerun the same command to resume from the last checkpoint")


@contextmanager
def listening() -> Iterator[Requests]:
    """Turn signals into requests within the context. SIGINT and SIGHUP stay ignored if they are (`&`, nohup)."""
    requests = Requests()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    listener = threading.Thread(target=_listen, args=(read_end, requests), name="signals", daemon=True)
    listener.start()
    heeded = [each for each in STOPS if each == signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN]
    # The handlers do next to nothing: Python runs them only when the main thread returns from a blocking call, and a
    # library may swallow their exceptions. The byte that wakes the listener is written at once.
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)  # before the handlers, to miss no signal
    before = {number: signal.signal(number, _outlive) for number in (*heeded, signal.SIGUSR1)}
    ending = True
    try:
        yield requests
        ending = requests.stop > 0
    finally:
        if ending:  # a launcher may repeat the signal, which must not interrupt the last messages
            before = {signal.SIGINT: signal.SIG_DFL} if signal.SIGINT in before else {}
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(write_end, bytes([_OVER]))  # closing is not enough: forked workers have the pipe open, too
        listener.join()
        os.close(write_end)
        os.close(read_end)


def _listen(read_end: int, requests: Requests) -> None:
    while (numbers := os.read(read_end, 64))[-1] != _OVER:
        for number in numbers:
            requests.heard(number)


def _outlive(number: int, _frame: FrameType | None) -> None:
    if number in STOPS:
        outlive_parent()  # the launcher got the signal, too, and may end before this rank has saved


def _say(line: str) -> None:
    """Log a line on rank 0 at any level, past the handlers, whose locks the main thread may hold."""
    if os.environ.get("RANK", "0") == "0":
        record = logging.makeLogRecord({"msg": line, "levelno": logging.INFO})
        try:
            os.write(2, f"{Formatter(os.environ).format(record)}\n".encode())
        except OSError:  # the terminal is closed
            return


def _end(number: int, line: str) -> None:
    _say(line)
    os._exit(128 + number)
