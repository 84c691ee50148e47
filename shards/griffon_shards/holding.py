"""A folder that one process at a time may write into, by a lock that a killed process leaves behind for nobody."""

import fcntl
import os
import socket
from pathlib import Path
from typing import BinaryIO

from griffon_shards.errors import SettingsError


def hold(path: Path, *, whose: str, instead: str) -> BinaryIO:
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
    """
    file = path.open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().decode("utf-8", "replace").strip()
        file.close()
        raise SettingsError(f"{whose} ({holder}); {instead}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return file
