"""A lock that lets one process at a time write into a folder. A killed process does not keep it."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import BinaryIO

from griffon_shards.support.errors import DataError, SettingsError


def lock_folder(path: Path, *, whose: str, instead: str) -> BinaryIO:
    """Lock a file until it is closed or this process ends.

    It is a POSIX record lock: the system releases it when the process ends, and child processes do not inherit it.

    Args:
        path: the lock file; created if it does not exist.
        whose: start of the message if it is locked, such as `OUT: another build is writing into it`.
        instead: end of that message: how to fix it.

    Returns:
        The open file.

    Raises:
        SettingsError: another process holds the lock; the message names that process.
        DataError: the storage does not support locks.
        OSError: the file cannot be opened for writing.
    """
    file = path.open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().decode("utf-8", "replace").strip() or "an unknown process"
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):  # POSIX allows either for a held lock
            raise SettingsError(f"{whose} ({holder}); {instead}") from None
        raise DataError(
            f"{path}: cannot be locked ({error.strerror}), so two processes might write here at once; enable file "
            "locks on this storage (NFS: start rpc.statd, or mount with local_lock=posix; Lustre: mount with flock), "
            "or give a folder on other storage"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return file
