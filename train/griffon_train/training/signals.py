"""Requests from outside while a run is at work: signals, and a file that asks for a checkpoint."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from griffon_train.data.worker_process import STOPS, outlive_parent

SAVE_NOW = "save-now"
"""A file of this name in a run's folder asks for a checkpoint at the end of the step."""


_OVER = 0  # no signal has this number


_ONE_CTRL_C_S = 1.0  # srun and torchrun may both hand on the same one


class Stopped(Exception):
    """A rank was asked to stop; every rank raises it at the same place.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Requests:
    """What signals have asked this rank for.

    A request to stop ends the process at once until `defer` is called, for nothing would be lost.

    Attributes:
        save: whether a checkpoint is wanted.
    """

    def __init__(self) -> None:
        self.save = False
        self._deferred = False
        self._asked = threading.Event()
        self._number, self._at_s = 0, 0.0

    @property
    def stop(self) -> int:
        """The signal that asked to stop, or 0."""
        return self._number

    def await_stop(self, patience_s: float) -> bool:
        """Whether this rank was asked to stop, or is within some seconds."""
        return self._asked.wait(patience_s)

    def defer(self) -> None:
        """From now on there is something to save before the process ends."""
        self._deferred = True

    def look(self, run: Path) -> None:
        """See whether somebody has put the file there; it is taken away."""
        path = run / SAVE_NOW
        if path.exists():
            path.unlink(missing_ok=True)
            self.save = True

    def heard(self, number: int) -> None:
        """Take in a signal; in a thread of its own, so that no library can swallow it or make it wait."""
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
            _say(f"{name}: saving, then the run ends; Ctrl-C now ends it without saving")
        elif number == signal.SIGINT and now_s - self._at_s > _ONE_CTRL_C_S:
            _end(number, "ended at once; the same command resumes from the last checkpoint")


@contextmanager
def listening() -> Iterator[Requests]:
    """Take signals for requests, until the end. SIGINT and SIGHUP that are ignored (`&`, nohup) stay so."""
    requests = Requests()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    listener = threading.Thread(target=_listen, args=(read_end, requests), name="signals", daemon=True)
    listener.start()
    heeded = [each for each in STOPS if each == signal.SIGTERM or signal.getsignal(each) is not signal.SIG_IGN]
    # The handlers do next to nothing. Python runs them once the main thread is back from what it is waiting for, and
    # an exception of theirs may come up where a library drops it; what wakes the listener is written at once.
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)  # first, or one in between would be lost
    before = {number: signal.signal(number, _outlive) for number in (*heeded, signal.SIGUSR1)}
    ending = True
    try:
        yield requests
        ending = requests.stop > 0
    finally:
        if ending:  # a launcher may ask for that once more, and is not to cut short what there is to say
            before = {signal.SIGINT: signal.SIG_DFL} if signal.SIGINT in before else {}
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.write(write_end, bytes([_OVER]))  # closing it is not enough: reading processes have it, too
        listener.join()
        os.close(write_end)
        os.close(read_end)


def _listen(read_end: int, requests: Requests) -> None:
    while (numbers := os.read(read_end, 64))[-1] != _OVER:
        for number in numbers:
            requests.heard(number)


def _outlive(number: int, _frame: FrameType | None) -> None:
    if number in STOPS:
        outlive_parent()  # a launcher that was asked to stop, too, may end before this rank has saved


def _say(line: str) -> None:
    """Not through `sys.stderr`, which the main thread may be writing to."""
    if os.environ.get("RANK", "0") == "0":
        try:
            os.write(2, f"{line}\n".encode())
        except OSError:  # the terminal is gone, which may be why
            return


def _end(number: int, line: str) -> None:
    _say(line)
    os._exit(128 + number)
