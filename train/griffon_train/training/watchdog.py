"""What comes from outside while a run goes on: signals, a request for a checkpoint, and a standstill."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from griffon_train.data.worker_process import outlive_parent

SAVE_NOW = "save-now"
"""A file of this name in a run's folder asks for a checkpoint at the end of the step."""

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a run to stop: from a scheduler or launcher, by Ctrl-C, and from a terminal that is closed."""

MARGIN_S = 5.0
"""How much longer a rank waits for others than they wait for storage, so that the one at fault can say what it is."""

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


def leave_signals_to_rank() -> None:
    """In a process forked by a rank: end on a request to stop, and know nothing of any other."""
    signal.set_wakeup_fd(-1)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


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


class Watchdog:
    """Ends this process, with a message and the stacks of its threads, when nothing has moved for too long."""

    def __init__(self, rank: int, stall_s: float) -> None:
        self.stall_s = stall_s
        self._rank, self._limit_s = rank, stall_s + MARGIN_S
        self._doing, self._fed_at_s = "starting", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def now(self, doing: str) -> None:
        """Something came to an end; this is what comes next."""
        self._doing = doing
        self.feed()

    def feed(self) -> None:
        """What goes on has moved."""
        self._fed_at_s = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left_s := self._fed_at_s + self._limit_s - time.monotonic()) > 0:
            # If a library keeps Python from running this thread (waiting for a page of a mapped file, say), it is C
            # that ends the process, later and without our message.
            faulthandler.dump_traceback_later(left_s + self._limit_s, exit=True, file=sys.__stderr__ or sys.stderr)
            if self._over.wait(left_s):
                faulthandler.cancel_dump_traceback_later()
                return
        sys.stderr.write(
            f"error: rank {self._rank}: nothing moved in {self.stall_s:.0f} s, {self._doing}; this rank or another "
            "hangs; below is what it was doing. The same command resumes from the last checkpoint; if this may take "
            "longer, raise --stall-s\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.stderr)
        os._exit(1)  # a thread that hangs in a library cannot be asked to end
