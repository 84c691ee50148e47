"""Files that all processes of a machine share: fetched once, kept under the hash of their content."""

import os
from pathlib import Path

from griffon_shards.storage.object_path import ObjectPath
from griffon_shards.storage.transfer import fetch
from griffon_shards.support.folder_lock import wait_for_lock


def default_cache() -> Path:
    """The folder for caches of this user, as the XDG base directory specification has it."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "griffon-shards"


def local_copy(source: ObjectPath, sha256: str, cache: Path | None = None) -> Path:
    """The path of a copy of an object on this machine. The first process fetches it while the others wait.

    Args:
        source: the object.
        sha256: SHA-256 of its content in lower-case hexadecimal.
        cache: folder of the copies; by default `default_cache()`.

    Raises:
        FileNotFoundError: there is no such object.
        DataError: its content has another hash, or the store cannot be used.
        OSError: the cache cannot be written.
    """
    folder = (cache or default_cache()) / "objects"
    path = folder / sha256
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(folder / f"{sha256}.lock", whose=f"{source}: another process fetches it"):
        if not path.exists():
            fetch(source, path, sha256=sha256)
    return path


def damaged_copy(path: Path, source: ObjectPath) -> str:
    """One line about a copy that has changed since it was fetched."""
    return f"{path}: this machine's copy of {source} is damaged; delete this file, and it is fetched again"
