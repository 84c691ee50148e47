"""The five operations on an object store, through fsspec, with retries and errors in one line.

Each process makes clients of its own: one that was inherited in a fork can hang. fsspec's listings are not cached, and
its file-like objects are not used.
"""

import importlib.util
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from griffon_shards.storage.errors import (
    StorageError,
    describe,
    describe_given_up,
    is_existing,
    is_missing,
    is_transient,
    truncated,
)
from griffon_shards.support.errors import DataError, SettingsError

Result = TypeVar("Result")
Stamp: TypeAlias = tuple[int, str]
"""Size of an object in bytes, and a text that changes when it is written again, such as its ETag."""

CONNECTIONS = 64
"""Connections that the client of a process keeps; more requests at once than that wait for one."""

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 8.0
_GIVE_UP_S = 35.0  # with the last attempt, errors reach the user within a minute
_CONNECT_S, _READ_S = 10, 15
_MODULES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_PROVIDERS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az"}
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified", "last_modified", "mtime")
_OPTIONS: dict[str, dict[str, Any]] = {
    # One layer retries, ours. One request reads an object whole, instead of a HEAD and several ranges.
    "s3": {
        "max_concurrency": 1,
        "config_kwargs": {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
        },
    },
    "gs": {},
    "az": {"max_concurrency": 1},
}
_CREATE: dict[str, dict[str, Any]] = {"s3": {"mode": "create"}, "gs": {"mode": "create"}, "az": {"overwrite": False}}
"""Arguments of `pipe_file` that write an object unless there is one. Versions of adlfs ignore `mode` silently."""


def prepare(url: str) -> None:
    """Import what a URL's provider needs, which takes a second. Raises SettingsError if it is not installed."""
    _file_system(url)


def read_whole(url: str) -> bytes:
    """The whole object; see `ObjectPath.read_bytes`."""
    data: bytes = retried(url, lambda: _file_system(url).cat_file(url))
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

    data = retried(url, read)
    if len(data) != size:
        raise DataError(truncated(url))
    return data


def size_of(url: str) -> int:
    """An object's size in bytes; see `ObjectPath.size`."""
    return stamp_of(url)[0]


def stamp_of(url: str) -> Stamp:
    """Size and version of an object; see `ObjectPath.stamp`."""
    entry = retried(url, lambda: _file_system(url).info(url))
    if entry["type"] != "file":
        raise _not_found(url)
    return _stamp(entry)


def has_objects(url: str) -> bool:
    """Whether there are objects below a URL."""
    try:
        return bool(retried(url, lambda: _file_system(url).info(url))["type"] == "directory")
    except FileNotFoundError:
        return False


def is_empty(url: str) -> bool:
    """Whether nothing is below a URL; see `ObjectPath.is_empty`."""
    entries = retried(url, lambda: _file_system(url).find(url, maxdepth=1, withdirs=True))
    return {name.rstrip("/") for name in entries} <= {url.partition("://")[2]}


def list_below(url: str) -> Iterator[tuple[str, Stamp]]:
    """Name relative to `url` and stamp of every object below it, in order of their names.

    Folder markers are left out: consoles and file managers make empty objects whose names end in a slash.
    """
    entries = retried(url, lambda: _file_system(url).find(url, detail=True))
    start = len(url.partition("://")[2]) + 1
    for name, entry in sorted(entries.items()):
        is_marker = name.endswith("/") and not entry["size"]
        if len(name) > start - 1 and not is_marker:  # an object with the folder's own name is not below it
            yield name[start:], _stamp(entry)


def write_whole(url: str, data: bytes) -> None:
    """Write an object whole, or replace it."""
    retried(url, lambda: _file_system(url).pipe_file(url, data))


def create(url: str, data: bytes) -> bool:
    """Write an object unless there is one; see `ObjectPath.create`."""
    attempts = 0

    def write() -> None:
        nonlocal attempts
        attempts += 1
        _file_system(url).pipe_file(url, data, **_CREATE[_provider(url)])

    try:
        retried(url, write)
    except FileExistsError:
        # An earlier attempt, whose answer was lost, may have written it. aiohttp also repeats a request unseen when a
        # connection breaks: then False is returned although this call wrote the object.
        return attempts > 1 and read_whole(url) == data
    return True


def upload(url: str, file: Path) -> None:
    """Write a file on disk as an object; it appears when it is complete."""
    retried(url, lambda: _file_system(url).put_file(str(file), url))


def _stamp(entry: Mapping[str, Any]) -> Stamp:
    version = next((entry[name] for name in _VERSIONS if entry.get(name)), "")
    return int(entry["size"]), str(version)


@lru_cache(maxsize=8)
def _client(provider: str, process_id: int) -> Any:  # noqa: ANN401 - fsspec has no types
    """The file system of a provider in this process."""
    module = _MODULES[provider]
    if importlib.util.find_spec(module) is None or importlib.util.find_spec("fsspec") is None:
        raise SettingsError(
            f"{provider}://: needs the package {module}; install it with pip install 'griffon-pipeline[{provider}]'"
        )
    import fsspec

    file_system = fsspec.filesystem(provider, skip_instance_cache=True, use_listings_cache=False, **_OPTIONS[provider])
    file_system.retries = 1
    return file_system


def _file_system(url: str) -> Any:  # noqa: ANN401 - fsspec has no types
    return _client(_provider(url), os.getpid())


def _provider(url: str) -> str:
    return _PROVIDERS[url.partition("://")[0]]


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
