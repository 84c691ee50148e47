"""Signals that ask a run to stop, and in processes that a rank forks."""

import signal

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that ask a run to stop: from a scheduler or launcher, from Ctrl-C, and from a closed terminal."""


def leave_signals_to_rank() -> None:
    """Reset signals in a process forked by a rank: end on a stop signal, and ignore SIGUSR1."""
    signal.set_wakeup_fd(-1)
    for stop in STOPS:
        if signal.getsignal(stop) is not signal.SIG_IGN:
            signal.signal(stop, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
