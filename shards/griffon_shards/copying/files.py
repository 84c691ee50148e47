"""The files that a copy of a set consists of, and whether a destination can take them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, idx_path, index_header
from griffon_shards.interop import peer_files
from griffon_shards.lock import LOCK_NAME, REJECTS_NAME, REPORT_NAME, Lock, read_lock
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.transfer import refuse_outside
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import TEMPORARY_PREFIX
from griffon_shards.support.tables import counted

COPY_LOCK_NAME = ".griffon-copy.lock"
"""Held while a copy writes into a folder on disk, and removed at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFile:
    """A file of a set.

    Attributes:
        name: path relative to the set.
        size_bytes: its size.
        sha256: hash of its content, or None where the lock has none.
    """

    name: str
    size_bytes: int
    sha256: str | None = None


def files_of(source: Location, lock: Lock, sizes: Mapping[str, int]) -> list[SetFile]:
    """All files of a set but its lock. The index is the first.

    Args:
        source: the set.
        lock: its lock.
        sizes: sizes of what is there, by name.

    Raises:
        DataError: a file is missing or truncated, or has a name that leads out of the set.
    """
    samples = sum(shard.samples for shard in lock.shards)
    index_bytes = len(index_header(samples)) + samples * INDEX_DTYPE.itemsize
    files = [SetFile(name=INDEX_NAME, size_bytes=index_bytes, sha256=lock.index_sha256)]
    for shard in lock.shards:
        files.append(SetFile(name=shard.name, size_bytes=shard.bytes, sha256=shard.sha256))
        files.append(SetFile(name=idx_path(Path(shard.name)).as_posix(), size_bytes=8 * (shard.samples + 1)))
    others = [*peer_files({shard.name: shard.samples for shard in lock.shards}), REJECTS_NAME]
    others += [REPORT_NAME] if REPORT_NAME in sizes else []
    files += [SetFile(name=name, size_bytes=sizes.get(name, 0)) for name in others]
    for file in files:
        refuse_outside(file.name, source)
        size_bytes = sizes.get(file.name)
        if size_bytes is None:
            raise DataError(f"{source / file.name}: missing; copy the set from elsewhere or rebuild it")
        if size_bytes != file.size_bytes:
            raise DataError(
                f"{source / file.name}: has {size_bytes:,} of {file.size_bytes:,} bytes; copy the set from elsewhere "
                "or rebuild it"
            )
    return files


def refuse_nested(source: Location, target: Location) -> None:
    """Raise SettingsError if one of two places is, or is within, the other."""
    if isinstance(source, ObjectPath) != isinstance(target, ObjectPath):
        return
    a, b = (_parts(place) for place in (source, target))
    shorter = min(len(a), len(b))
    if a == b:
        raise SettingsError(f"{target}: is SRC itself; give another place")
    if a[:shorter] == b[:shorter]:
        raise SettingsError(f"{target}: SRC and DST lie within each other; give a DST outside of {source}")


def is_frozen_copy(target: Location, lock: Lock, lock_bytes: bytes) -> bool:
    """Whether a destination has the lock of this set already.

    Raises:
        SettingsError: it holds another set.
        DataError: its lock is damaged.
    """
    try:
        existing = (target / LOCK_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    digest = read_lock(target).digest
    if digest != lock.digest:
        raise SettingsError(
            f"{target}: holds another set (digest {digest}, that of SRC is {lock.digest}); give another DST"
        )
    if existing != lock_bytes:
        raise SettingsError(
            f"{target}: holds the same samples, but its lock has other weights or versions (see `griffon-shards "
            "diff`); give another DST"
        )
    return True


def refuse_strangers(target: Location, names: Collection[str], sizes: Mapping[str, int]) -> None:
    """Raise SettingsError if a destination has files that are not of the set."""
    known = {LOCK_NAME, COPY_LOCK_NAME, *names}
    others = [name for name in sizes if name not in known and not PurePosixPath(name).name.startswith(TEMPORARY_PREFIX)]
    if others:
        raise SettingsError(
            f"{target}: has {counted(len(others), 'file')} not of this set, such as {others[0]}; give an empty DST, or "
            "one where a copy of this set was interrupted"
        )


def _parts(place: Location) -> tuple[str, ...]:
    return tuple(str(place).split("/")) if isinstance(place, ObjectPath) else place.resolve().parts
