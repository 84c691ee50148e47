"""The five operations on an object store, through fsspec, with retries and errors in one line.

Each process makes clients of its own: one that was inherited in a fork can hang. fsspec's listings are not cached, and
its file-like objects are not used.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from griffon_shards.storage import providers
from griffon_shards.storage.errors import (
    StorageError,
    describe,
    describe_given_up,
    is_existing,
    is_missing,
    is_transient,
    no_bucket,
    truncated,
)
from griffon_shards.support.errors import DataError, SettingsError

Result = TypeVar("Result")
Stamp: TypeAlias = tuple[int, str]
"""Size of an object in bytes, and a text that changes when it is written again, such as its ETag."""

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 8.0
_GIVE_UP_S = 35.0  # with the last attempt, errors reach the user within a minute
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime")


def prepare(url: str) -> None:
    """Import what a URL's provider needs, which takes a second. Raises SettingsError if it is not installed."""
    _file_system(url)


def read_whole(url: str) -> bytes:
    """The whole object; see `ObjectPath.read_bytes`."""
    data: bytes = _done(url, lambda: _file_system(url).cat_file(url))
    return data


def read_range(url: str, start: int, size: int) -> bytes:
    """Bytes [start, start + size) of an object; see `ObjectPath.read_range`."""
    if not size:
        return b""

    def read() -> bytes:
        data: bytes = _file_system(url).cat_file(url, start=start, end=start + size)
        if 0 < len(data) < size and not _ends_at(url, start + len(data)):
            raise ConnectionError(f"got {len(data):,} of {size:,} bytes")
        return data

    data = _done(url, read)
    if len(data) != size:
        raise DataError(truncated(url))
    return data


def size_of(url: str) -> int:
    """An object's size in bytes; see `ObjectPath.size`."""
    return stamp_of(url)[0]


def stamp_of(url: str) -> Stamp:
    """Size and version of an object; see `ObjectPath.stamp`."""
    entry = _done(url, lambda: _file_system(url).info(url))
    if entry["type"] != "file":
        raise _not_found(url)
    return _stamp(entry)


def has_objects(url: str) -> bool:
    """Whether there are objects below a URL."""
    try:
        return bool(_done(url, lambda: _file_system(url).info(url))["type"] == "directory")
    except FileNotFoundError:
        return False


def is_empty(url: str) -> bool:
    """Whether nothing is below a URL; see `ObjectPath.is_empty`."""
    entries = _done(url, lambda: _file_system(url).find(url, maxdepth=1, withdirs=True))
    return {name.rstrip("/") for name in entries} <= {url.partition("://")[2]}


def list_below(url: str) -> Iterator[tuple[str, Stamp]]:
    """Name relative to `url` and stamp of every object below it, in order of their names.

    Folder markers are left out: consoles and file managers make empty objects whose names end in a slash.
    """
    entries = _done(url, lambda: _file_system(url).find(url, detail=True))
    start = len(url.partition("://")[2]) + 1
    for name, entry in sorted(entries.items()):
        if len(name) > start and not (name.endswith("/") and not entry["size"]):
            yield name[start:], _stamp(entry)


def write_whole(url: str, data: bytes) -> None:
    """Write an object whole, or replace it."""
    _done(url, lambda: _file_system(url).pipe_file(url, data))


def create(url: str, data: bytes) -> bool:
    """Write an object unless there is one; see `ObjectPath.create`."""
    attempts = 0

    def write() -> None:
        nonlocal attempts
        attempts += 1
        _file_system(url).pipe_file(url, data, **providers.CREATE[providers.provider_of(url)])

    try:
        _done(url, write)
    except FileExistsError:
        # An earlier attempt, whose answer was lost, may have written it. aiohttp also repeats a request unseen when a
        # connection breaks: then False is returned although this call wrote the object.
        return attempts > 1 and read_whole(url) == data
    return True


def upload(url: str, file: Path) -> None:
    """Write a file on disk as an object; it appears when it is complete."""
    _done(url, lambda: _file_system(url).put_file(str(file), url))


def _stamp(entry: Mapping[str, Any]) -> Stamp:
    version = next((entry[name] for name in _VERSIONS if entry.get(name)), "")
    return int(entry["size"]), str(version).strip('"')  # older adlfs quotes it in some places


@lru_cache(maxsize=8)
def _client(provider: str, process_id: int) -> Any:  # noqa: ANN401 - fsspec has no types
    """The file system of a provider in this process."""
    return providers.file_system(provider)


def _file_system(url: str) -> Any:  # noqa: ANN401 - fsspec has no types
    return _client(providers.provider_of(url), os.getpid())


def _done(url: str, operation: Callable[[], Result]) -> Result:
    """The result of an operation, as `retried` has it; a bucket that is missing is a StorageError here."""
    try:
        return retried(url, operation)
    except FileNotFoundError:
        _require_bucket(providers.bucket_of(url))
        raise


@lru_cache(maxsize=64)
def _require_bucket(url: str) -> None:
    """Raise StorageError if a bucket is missing; asked once. Without permission to ask, it counts as there."""
    try:
        retried(url, lambda: providers.look_for_bucket(_file_system(url), url))
    except (FileNotFoundError, StorageError) as error:
        if isinstance(error, FileNotFoundError) or str(error) == no_bucket(url):
            raise StorageError(no_bucket(url)) from None


def retried(
    url: str,
    operation: Callable[[], Result],
    *,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The result of an operation, after as many attempts as make sense; waits grow, with jitter.

    Raises:
        FileNotFoundError: there is no such object.
        FileExistsError: there is one, and the operation only creates.
        SettingsError: a package is missing.
        StorageError: the error is final, or is still there after 35 s.
    """
    start = clock()
    attempts = 0
    while True:
        attempts += 1
        try:
            return operation()
        except (SettingsError, DataError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - each provider has exceptions of its own
            passed_s = clock() - start
            if is_existing(error):
                raise FileExistsError(url) from None
            if is_missing(error):
                raise _not_found(url) from None
            if not is_transient(error):
                raise StorageError(describe(error, url)) from None
            wait_s = random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempts))
            if passed_s + wait_s > _GIVE_UP_S:
                raise StorageError(describe_given_up(error, url, attempts, passed_s)) from None
        wait(wait_s)


def _ends_at(url: str, end: int) -> bool:
    return size_of(url) == end


def _not_found(url: str) -> FileNotFoundError:
    return FileNotFoundError(2, "no such object", url)
