"""A watchdog that ends a process that makes no progress, and shows what it was doing."""

import faulthandler
import logging
import os
import sys
import threading
import time

MARGIN_S = 5.0
"""A rank waits this much longer for others than for storage, so that the rank whose storage stalls reports it first."""

_log = logging.getLogger(__name__)


class Watchdog:
    """Ends this process, with a message and its threads' stacks, when it makes no progress for too long.

    Every sign of progress restarts faulthandler's timer, which ends the process even while a library keeps Python from
    running, for example on a page fault in a mapped file. It shows the stacks, but cannot name the rank and the phase,
    so a thread that does is ahead of it.
    """

    def __init__(self, rank: int, stall_s: float) -> None:
        self.stall_s = stall_s
        self._rank, self._limit_s = rank, stall_s + MARGIN_S
        self._doing, self._began_s = "starting", time.monotonic()
        self._over = threading.Event()
        self.feed()
        self._reporter = threading.Thread(target=self._report, name="watchdog", daemon=True)
        self._reporter.start()

    def now(self, doing: str) -> None:
        """Begin the next phase, which the message will name."""
        self.feed()
        if doing != self._doing:
            _log.debug("%s (%s took %.1f s)", doing, self._doing, self._fed_at_s - self._began_s)
            self._doing, self._began_s = doing, self._fed_at_s

    def feed(self) -> None:
        """Report progress in the current phase."""
        self._fed_at_s = time.monotonic()
        limit_s = self._limit_s + MARGIN_S  # the thread's message comes first
        faulthandler.dump_traceback_later(limit_s, exit=True, file=sys.__stderr__ or sys.stderr)

    def close(self) -> None:
        """Stop watching."""
        faulthandler.cancel_dump_traceback_later()
        self._over.set()
        self._reporter.join()

    def _report(self) -> None:
        while (left_s := self._fed_at_s + self._limit_s - time.monotonic()) > 0:
            if self._over.wait(left_s):
                return
        sys.stderr.write(
            f"error: rank {self._rank}: no progress for {self.stall_s:.0f} s while {self._doing}; this rank or another "
            "hangs; its stack traces follow. Rerun the same command to resume from the last checkpoint; if this may "
            "take longer, raise --stall-s\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.stderr)
        os._exit(1)  # a thread that hangs in a library cannot be asked to end
