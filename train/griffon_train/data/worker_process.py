"""Helpers for processes that must not outlive their parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, for whatever reason; does nothing on other systems.

    A process that waits for a stalled disk, or for a pipe that nobody reads, would not notice by itself.
    """
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended in between
            os.kill(os.getpid(), signal.SIGKILL)


def outlive_parent() -> None:
    """Undo `end_with_parent`, to finish something first; call it in the same thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a run to stop: from a scheduler or launcher, from Ctrl-C, and from a closed terminal."""


def leave_signals_to_rank() -> None:
    """Reset signals in a process forked by a rank: end on a stop signal, and ignore SIGUSR1."""
    signal.set_wakeup_fd(-1)
    for stop in STOPS:
        if signal.getsignal(stop) is not signal.SIG_IGN:
            signal.signal(stop, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
