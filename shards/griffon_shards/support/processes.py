"""Processes that must not outlive their parent, and how many to start."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Have this process killed when its parent ends, for whatever reason.

    On Linux, the kernel kills it, even while it waits for a stalled disk or a library holds the GIL. The kernel counts
    the thread that started this process as the parent, so that thread must live as long as this process is needed.

    Elsewhere, a thread waits for the parent, if this process was started with `multiprocessing`.
    """
    parent = multiprocessing.parent_process()
    if sys.platform == "linux":
        parent_pid = os.getppid() if parent is None else parent.pid
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # the parent has ended already
            os.kill(os.getpid(), signal.SIGKILL)
    elif parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def outlive_parent() -> None:
    """Undo `end_with_parent` on Linux, to finish something first; call it in the same thread."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
