"""A watchdog that ends a process that makes no progress, and shows what it was doing."""

import faulthandler
import os
import sys
import threading
import time

MARGIN_S = 5.0
"""A rank waits this much longer for others than for storage, so that the rank whose storage stalls reports it first."""


class Watchdog:
    """Ends this process, with a message and its threads' stacks, when it makes no progress for too long."""

    def __init__(self, rank: int, stall_s: float) -> None:
        self.stall_s = stall_s
        self._rank, self._limit_s = rank, stall_s + MARGIN_S
        self._doing, self._fed_at_s = "starting", time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def now(self, doing: str) -> None:
        """Begin the next phase, which the message will name."""
        self._doing = doing
        self.feed()

    def feed(self) -> None:
        """Report progress in the current phase."""
        self._fed_at_s = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while (left_s := self._fed_at_s + self._limit_s - time.monotonic()) > 0:
            # A library may keep Python from running this thread, for example on a page fault in a mapped file. Then
            # faulthandler's C thread ends the process, later and without our message.
            faulthandler.dump_traceback_later(left_s + self._limit_s, exit=True, file=sys.__stderr__ or sys.stderr)
            if self._over.wait(left_s):
                faulthandler.cancel_dump_traceback_later()
                return
        sys.stderr.write(
            f"error: rank {self._rank}: no progress for {self.stall_s:.0f} s while {self._doing}; this rank or another "
            "hangs; its stack traces follow. Rerun the same command to resume from the last checkpoint; if this may "
            "take longer, raise --stall-s\n"
        )
        sys.stderr.flush()
        faulthandler.dump_traceback(file=sys.stderr)
        os._exit(1)  # a thread that hangs in a library cannot be asked to end
