"""What comes from outside while a run goes on: signals, a request for a checkpoint, and a standstill."""

import faulthandler
import os
import sys
import threading
import time

MARGIN_S = 5.0
"""How much longer a rank waits for others than they wait for storage, so that the one at fault can say what it is."""


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
