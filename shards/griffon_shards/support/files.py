"""Files and folders that appear complete or not at all: temporary name, fsync, rename, fsync of the parent folder."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from griffon_shards.support.errors import SettingsError

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of the names of unfinished files. They may be deleted while no build is running."""

UNUSABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST})
"""Errors of making a folder, or a file in it, that are cured by naming another folder: the setting is at fault."""

_BUFFER_BYTES = 1 << 18
_WRITE_BACK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing. The file gets its name only when it is complete and on disk.

    Two processes may write the same path at once: each has its own temporary file, and the last rename wins.
    On an error the temporary file is removed and `path` is unchanged.
    """
    temporary = _temporary_path(path)
    try:
        with temporary.open("wb", buffering=_BUFFER_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a failed write does not name its file
            error.filename = str(path)
        raise
    sync_folder(path.parent)


@contextmanager
def whole_folder(folder: Path, moved: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Yield a temporary folder to fill. It becomes `folder` on success and is removed on an error.

    Args:
        folder: the final path; its parents are created.
        moved: called after each file is synced to disk.

    Raises:
        SettingsError: `folder` is a file, or is not empty.
    """
    refuse_taken(folder)
    final = folder.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(final)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            path.chmod(temporary.stat().st_mode & 0o666)  # safetensors makes its files readable by the owner alone
            with path.open("rb") as file:
                os.fsync(file.fileno())
            moved()
        sync_folder(temporary)
        temporary.replace(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(final.parent)


def refuse_taken(folder: Path) -> None:
    """Raise SettingsError if `folder` is a file, or is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder}: already exists and is not empty; nothing is overwritten, give another folder")


def begin_write_back(file: BinaryIO, start: int, stop: int) -> int:
    """Start writing bytes [start, stop) of an open file to disk in the background, where the system supports it.

    Linux does this when told that the pages are no longer needed. Little is then left for the fsync at the end.
    Ranges under 8 MiB are left alone.

    Returns:
        The `start` of the next call.
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
    """Make renames and deletions in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files of killed writers anywhere below `folder`. Call it only while no build runs there."""
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        path.unlink(missing_ok=True)


def sha256_of(path: Path, moved: Callable[[], object] = lambda: None) -> str:
    """SHA-256 of a file in lower-case hexadecimal. The file is read in pieces; `moved` is called after each."""
    digest, piece = hashlib.sha256(), bytearray(_PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
            moved()
    return digest.hexdigest()


def _temporary_path(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{path.name}")
