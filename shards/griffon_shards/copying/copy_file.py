"""Copies one file between disks and object stores. It is hashed while it is read from its source."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from griffon_shards.copying.files import SetFile
from griffon_shards.storage import Location
from griffon_shards.storage.reading import open_location, sha256_at
from griffon_shards.storage.transfer import fetch
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file

_PIECE_BYTES = 1 << 20
_REQUESTS = 2  # ranges at once of each of several files

Moved = Callable[[int], object]


def copy_file(source: Location, target: Location, file: SetFile, work: Path | None, moved: Moved) -> None:
    """Copy a file of a set. It appears at its destination complete, or not at all.

    Args:
        source: the set.
        target: its copy.
        file: what to copy.
        work: folder for a temporary file, between object stores; by default that of the system.
        moved: called with numbers of bytes that were copied, which add up to the size of the file.

    Raises:
        DataError: the source is damaged.
        StorageError: an object store cannot be used.
        OSError: a disk fails.
    """
    origin, copy = source / file.name, target / file.name
    if isinstance(copy, Path):
        copy.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(origin, Path):
            _copy_on_disk(origin, copy, file, moved)
        else:
            fetch(origin, copy, sha256=file.sha256, requests=_REQUESTS, moved=moved)
    elif isinstance(origin, Path):
        check_hash(origin, sha256_at(origin), file)
        copy.upload(origin)
        moved(file.size_bytes)
    else:
        with tempfile.TemporaryDirectory(prefix="griffon-copy-", dir=work) as folder:
            between = Path(folder) / "object"
            fetch(origin, between, sha256=file.sha256, requests=_REQUESTS)
            copy.upload(between)
        moved(file.size_bytes)


def is_same(source: Location, target: Location, file: SetFile) -> bool:
    """Whether a file at a destination has the content that it should have. Raises as `copy_file`."""
    expected = file.sha256 or sha256_at(source / file.name)
    return sha256_at(target / file.name) == expected


def check_hash(origin: Location, sha256: str, file: SetFile) -> None:
    """Raise DataError if a file of the source has another hash than in the lock."""
    if file.sha256 not in (None, sha256):
        raise DataError(
            f"{origin}: damaged, its SHA-256 is {sha256}, the lock has {file.sha256}; copy the set from elsewhere or "
            "rebuild it"
        )


def _copy_on_disk(origin: Path, copy: Path, file: SetFile, moved: Moved) -> None:
    digest = hashlib.sha256()
    with whole_file(copy) as out:
        with open_location(origin) as read:
            while piece := read.read(_PIECE_BYTES):
                digest.update(piece)
                out.write(piece)
                moved(len(piece))
        check_hash(origin, digest.hexdigest(), file)
