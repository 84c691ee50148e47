"""An executor for `--engine` whose worker processes see an empty file system of their own at the path OWN_DISK."""

import ctypes
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

_SPAWN = multiprocessing.get_context("spawn")
_NEW_MOUNTS, _PRIVATE = 0x00020000, 1 << 18 | 1 << 14  # CLONE_NEWNS; MS_PRIVATE | MS_REC


def mount_own_disk() -> None:
    """Mount the file system in this process. Raises OSError if that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    steps: list[Callable[[], int]] = [
        lambda: libc.unshare(_NEW_MOUNTS),
        lambda: libc.mount(b"none", b"/", None, _PRIVATE, None),
        lambda: libc.mount(b"none", os.environ["OWN_DISK"].encode(), b"tmpfs", 0, None),
    ]
    for step in steps:
        if step():
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def processes(workers: int) -> ProcessPoolExecutor:
    """Workers are processes, each a machine of its own."""
    return ProcessPoolExecutor(workers, _SPAWN, mount_own_disk)
