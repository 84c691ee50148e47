"""A folder that one process at a time may write into, by a lock that a killed process leaves behind for nobody."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import BinaryIO

from griffon_shards.support.errors import DataError, SettingsError


def lock_folder(path: Path, *, whose: str, instead: str) -> BinaryIO:
    """Lock a file until it is closed, or this process ends.

    It is a POSIX record lock: the system releases it with the process, and children do not inherit it.

    Args:
        path: of the lock's file; made where it is not there.
        whose: what the folder is to the user, for the message: `OUT: another build is writing into it`.
        instead: what to do where it is held.

    Returns:
        The open file.

    Raises:
        SettingsError: another process holds it; the message names that process.
        DataError: the storage has no locks.
        OSError: the file cannot be opened for writing.
    """
    file = path.open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().decode("utf-8", "replace").strip() or "an unknown process"
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):  # POSIX allows either for a lock that is held
            raise SettingsError(f"{whose} ({holder}); {instead}") from None
        raise DataError(
            f"{path}: cannot be locked ({error.strerror}), so two processes might write here at once; let its storage "
            "lock files (NFS: start rpc.statd, or mount with local_lock=posix; Lustre: mount with flock), or give a "
            "folder on other storage"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return file
