"""A lock that lets one process at a time write into a folder. A killed process does not keep it."""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import BinaryIO

from griffon_shards.support.errors import DataError, SettingsError

_log = logging.getLogger(__name__)


def lock_folder(path: Path, *, whose: str, instead: str, shared: bool = False) -> BinaryIO:
    """Lock a file until it is closed or this process ends.

    It is a POSIX record lock: the system releases it when the process ends, and child processes do not inherit it.

    Args:
        path: the lock file; created if it does not exist.
        whose: start of the message if it is locked, such as `OUT: another build is writing into it`.
        instead: end of that message: how to fix it.
        shared: let other processes share the lock; only those that want it for themselves are refused.

    Returns:
        The open file.

    Raises:
        SettingsError: another process holds the lock; the message names that process.
        DataError: the storage does not support locks.
        OSError: the file cannot be opened for writing.
    """
    file = path.open("a+b")
    if not _lock(file, path, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)):
        with file:
            raise SettingsError(f"{whose} ({_holder(file)}); {instead}")
    file.truncate(0)
    if not shared:  # of several holders, the one that wrote its name may have ended
        _write_holder(file)
    return file


def wait_for_lock(path: Path, *, whose: str) -> BinaryIO:
    """Lock a file as `lock_folder` does, but wait while another process holds the lock, and log that once.

    Args:
        path: the lock file; created if it does not exist.
        whose: start of the message, such as `OUT: another part scans the annotations`.

    Returns:
        The open file.

    Raises:
        DataError: the storage does not support locks.
        OSError: the file cannot be opened for writing.
    """
    file = path.open("a+b")
    if not _lock(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB):
        _log.info(f"{whose} ({_holder(file)}); waiting for it")
        _lock(file, path, fcntl.LOCK_EX)
    file.truncate(0)
    _write_holder(file)
    return file


def _lock(file: BinaryIO, path: Path, operation: int) -> bool:
    """Lock an open file; returns whether it is locked now. The file is closed if its storage does not support locks."""
    try:
        fcntl.lockf(file, operation)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # POSIX allows either for a held lock
            return False
        file.close()
        raise DataError(
            f"{path}: cannot be locked ({error.strerror}), so two processes might write here at once; enable file "
            "locks on this storage (NFS: start rpc.statd, or mount with local_lock=posix; Lustre: mount with flock), "
            "or give a folder on other storage"
        ) from None
    return True


def _holder(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip() or "an unknown process"


def _write_holder(file: BinaryIO) -> None:
    try:
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
    except OSError as error:  # the disk is full
        error.filename = file.name
        raise
