"""Copies of whole objects and folders on disk, several requests at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from griffon_shards.storage.object_path import ObjectPath
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file

REQUESTS = 16
"""Requests at once."""

_RANGE_BYTES = 16 << 20


def fetch(
    source: ObjectPath,
    target: Path,
    moved: Callable[[int], object] = lambda _: None,
    *,
    size_bytes: int | None = None,
) -> None:
    """Copy an object to disk in ranges. The file gets its name when it is complete.

    Args:
        source: the object.
        target: path of the copy; its folder exists.
        moved: called with the number of bytes of each range that was written.
        size_bytes: its size, if it is known, which saves a request.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the store cannot be used.
        OSError: the disk is full.
    """
    total_bytes = source.size() if size_bytes is None else size_bytes
    starts = range(0, total_bytes, _RANGE_BYTES)

    def read(start: int) -> bytes:
        return source.read_range(start, min(_RANGE_BYTES, total_bytes - start))

    with whole_file(target) as file, ThreadPoolExecutor(min(REQUESTS, max(1, len(starts)))) as pool:
        for first in range(0, len(starts), REQUESTS):  # few ranges in memory
            for data in pool.map(read, starts[first : first + REQUESTS]):
                file.write(data)
                moved(len(data))


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
        if ".." in name.split("/") or name.startswith("/"):
            raise DataError(f"{source}: the object {name!r} would be copied outside of {target}; rename it")
        path = target / name
        if not path.is_file() or path.stat().st_size != size_bytes:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(source / name, path, size_bytes=size_bytes)

    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(REQUESTS) as pool:
        for _ in pool.map(copy, (entry for entry in source.listing() if keep(entry[0]))):
            pass
