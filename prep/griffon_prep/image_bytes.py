"""The bytes of one candidate path of an image: a file on disk, or an object of an object store."""

import errno
import os
import stat

from griffon_prep.records import Rejected
from griffon_shards.storage import ObjectPath

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)
_MAX_BYTES = 1 << 30
_LONGEST_KEY_BYTES = 1024  # of all providers: a longer one is refused, rather than not found


def is_url(path: str) -> bool:
    """Whether an image root, or a path below it, is in an object store."""
    return "://" in path


def image_bytes(path: str, name: str) -> bytes | None:
    """Read a file, or an object with one request.

    Args:
        path: absolute path or URL.
        name: the image's name in the reject list.

    Returns:
        The bytes, or None if there is no such file.

    Raises:
        Rejected: `picture_unreadable` if it is empty, larger than 1 GiB, not a regular file, or not readable.
        OSError: the storage fails.
        StorageError: the object store cannot be used.
    """
    return _object_bytes(path, name) if is_url(path) else _file_bytes(path, name)


def is_there(path: str) -> bool:
    """Whether there is such a file or object. Raises StorageError as `image_bytes`."""
    return ObjectPath(path).is_file() if is_url(path) else os.access(path, os.F_OK)


def _object_bytes(url: str, name: str) -> bytes | None:
    if len(url.split("/", 3)[-1].encode()) > _LONGEST_KEY_BYTES:
        return None
    try:
        data = ObjectPath(url).read_bytes()
    except FileNotFoundError:
        return None
    _check_size(len(data), name)
    return data


def _file_bytes(path: str, name: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # don't block on a named pipe
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Rejected("picture_unreadable", f"{name}: permission denied") from None
        if error.errno == errno.ENXIO:
            raise Rejected("picture_unreadable", f"{name}: is a socket, not a file") from None
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("picture_unreadable", f"{name}: is a pipe or device, not a file")
        _check_size(status.st_size, name)
        return _read_all(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _check_size(size_bytes: int, name: str) -> None:
    if not size_bytes:
        raise Rejected("picture_unreadable", f"{name}: the file is empty")
    if size_bytes > _MAX_BYTES:
        raise Rejected("picture_unreadable", f"{name}: {size_bytes:,} bytes; the limit is 1 GiB")


def _read_all(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data
