"""Processes that work for others and must not outlive them."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have the system kill this process when its parent ends, however that ends; where the system knows how.

    A process that waits for a stalled disk, or for a pipe that nobody reads, would never see it by itself.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Take `end_with_parent` back, in the thread that called it: there is something to finish first."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a run to stop: from a scheduler or launcher, by Ctrl-C, and from a terminal that is closed."""


def leave_signals_to_rank() -> None:
    """In a process forked by a rank: end on a request to stop, and know nothing of any other."""
    signal.set_wakeup_fd(-1)
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
