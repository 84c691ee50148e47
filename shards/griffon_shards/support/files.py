"""Files that get their name only when they are whole: temporary name, fsync, rename, fsync of the folder."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_PREFIX = ".tmp-"
"""What the name of an unfinished file begins with; such files may be deleted when no build is running."""

_BUFFER_BYTES = 1 << 18
_WRITE_BACK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears under its name only when whole and on disk.

    Two processes may write the same path at once: each has its own temporary file, the last rename stands.
    On an error the temporary file is removed and `path` is left as it was.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{path.name}")
    try:
        with temporary.open("wb", buffering=_BUFFER_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a failed write does not say of which file
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def begin_write_back(file: BinaryIO, start: int, stop: int) -> int:
    """Let the system write bytes [start, stop) of an open file to disk while more are made, where it knows how.

    Linux does so when it is told that they are not needed any more; the fsync at the end has little left to do.
    Nothing happens before some megabytes have come together. Returns where the next call is to begin.
    """
    if stop - start < _WRITE_BACK_BYTES or not hasattr(os, "posix_fadvise"):
        return start
    file.flush()
    os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)
    return stop


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` through `whole_file`."""
    with whole_file(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete what killed writers left below `folder`; call it only while no build runs there."""
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path, moved: Callable[[], object] = lambda: None) -> str:
    """SHA-256 of a file, as lower-case hexadecimal, read in pieces; `moved` is called for each."""
    digest, piece = hashlib.sha256(), bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
            moved()
    return digest.hexdigest()
