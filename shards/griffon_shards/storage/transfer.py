"""Copies of whole objects and folders on disk, several requests at a time."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from griffon_shards.storage.object_path import ObjectPath
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file

REQUESTS = 8
"""Requests at once."""

RANGE_BYTES = 8 << 20
"""Bytes of one request."""


def fetch(
    source: ObjectPath,
    target: Path,
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    requests: int = REQUESTS,
    moved: Callable[[int], object] = lambda _: None,
) -> str:
    """Copy an object to disk in ranges. The file gets its name when it is complete.

    Args:
        source: the object.
        target: path of the copy; its folder exists.
        sha256: SHA-256 of the content in lower-case hexadecimal, if it is known.
        requests: ranges that are read at once, 8 MiB each.
        moved: called with the number of bytes of each range that was written.
        size_bytes: its size, if it is known, which saves a request.

    Returns:
        SHA-256 of the content.

    Raises:
        FileNotFoundError: there is no such object.
        DataError: the content has another hash; there is no copy then.
        StorageError: the store cannot be used.
        OSError: the disk is full.
    """
    total_bytes = source.size() if size_bytes is None else size_bytes
    starts = range(0, total_bytes, RANGE_BYTES)
    digest = hashlib.sha256()

    def read(start: int) -> bytes:
        return source.read_range(start, min(RANGE_BYTES, total_bytes - start))

    with whole_file(target) as file, ThreadPoolExecutor(requests) as pool:
        for first in range(0, len(starts), requests):  # few ranges in memory
            for data in pool.map(read, starts[first : first + requests]):
                file.write(data)
                digest.update(data)
                moved(len(data))
        if sha256 not in (None, digest.hexdigest()):
            raise DataError(
                f"{source}: damaged, its SHA-256 is {digest.hexdigest()}, expected {sha256}; copy the set again or "
                "rebuild it"
            )
    return digest.hexdigest()


def fetch_folder(source: ObjectPath, target: Path, *, keep: Callable[[str], bool] = lambda _: True) -> None:
    """Copy all objects below a URL to a folder on disk; those that are there with their size are kept.

    Args:
        source: the folder.
        target: folder of the copies; created.
        keep: which names, relative to `source`, are copied.

    Raises as `fetch`, and DataError if a name leads out of the folder.
    """

    def copy(entry: tuple[str, int]) -> None:
        name, size_bytes = entry
        refuse_outside(name, source)
        path = target / name
        if not path.is_file() or path.stat().st_size != size_bytes:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(source / name, path, size_bytes=size_bytes, requests=1)

    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(REQUESTS) as pool:
        for _ in pool.map(copy, (entry for entry in source.listing() if keep(entry[0]))):
            pass


def refuse_outside(name: str, source: object) -> None:
    """Raise DataError if the name of an object, relative to `source`, would lead out of the folder of its copy."""
    if not name or name.startswith("/") or {"", ".", ".."} & set(name.split("/")):
        raise DataError(f"{source}: the object {name!r} cannot be copied to a file of this name; rename or delete it")
