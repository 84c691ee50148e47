"""Copies a frozen set: the index first, the lock last, and the rest in between, several files at once.

The index tells what DST is becoming: a DST with the index of another set is refused. The lock is only written if there
is none, once every file is there with its size, so that half a copy never looks frozen.
"""

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from griffon_shards.copying.copy_file import check_hash, copy_file, is_same
from griffon_shards.copying.files import (
    COPY_LOCK_NAME,
    SetFile,
    files_of,
    is_frozen_copy,
    refuse_nested,
    refuse_strangers,
)
from griffon_shards.index import INDEX_NAME
from griffon_shards.lock import LOCK_NAME, Lock, read_lock
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.reading import sizes_below
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import remove_temporaries, write_whole
from griffon_shards.support.folder_lock import lock_folder
from griffon_shards.support.tables import size

_LARGE_INDEX_BYTES = 256 << 20  # 6 million samples; too large for one request


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """What a copy does.

    Attributes:
        source: the set.
        target: the place of its copy.
        lock: the lock of the set.
        lock_bytes: its file.
        files: all other files of the set, the index first.
        kept: names of files that are there with their size.
        frozen: whether the lock is there, too.
    """

    source: Location
    target: Location
    lock: Lock
    lock_bytes: bytes
    files: Sequence[SetFile]
    kept: frozenset[str]
    frozen: bool

    @property
    def up_to_date(self) -> bool:
        """Whether nothing has to be copied."""
        return self.frozen and len(self.kept) == len(self.files)

    @property
    def missing(self) -> list[SetFile]:
        """The files that are not there with their size."""
        return [file for file in self.files if file.name not in self.kept]


def plan_copy(source: Location, target: Location) -> CopyPlan:
    """Look at a set and at the place of its copy. Nothing is written.

    Raises:
        SettingsError: the destination cannot take this set.
        DataError: the source is not frozen, or is damaged, or a store cannot be used.
    """
    refuse_nested(source, target)
    lock = read_lock(source)
    lock_bytes = (source / LOCK_NAME).read_bytes()
    files = files_of(source, lock, sizes_below(source))
    frozen = is_frozen_copy(target, lock, lock_bytes)
    if isinstance(target, Path) and target.exists() and not target.is_dir():
        raise SettingsError(f"{target}: is a file; give a folder")
    sizes = sizes_below(target)
    if not frozen:
        refuse_strangers(target, {file.name for file in files}, sizes)
        if INDEX_NAME in sizes:
            _refuse_other_index(source, target, files[0])
    kept = frozenset(file.name for file in files if sizes.get(file.name) == file.size_bytes)
    return CopyPlan(
        source=source, target=target, lock=lock, lock_bytes=lock_bytes, files=files, kept=kept, frozen=frozen
    )


def run_copy(
    plan: CopyPlan, *, workers: int, verify: bool, work: Path | None, moved: Callable[[int], object]
) -> list[SetFile]:
    """Copy what is missing, check what is kept, and write the lock.

    Args:
        plan: what `plan_copy` returned.
        workers: files that are copied at once.
        verify: also read the kept files, and copy those again whose content is wrong.
        work: folder for temporary files, between object stores.
        moved: called with numbers of bytes that are copied or kept; they add up to the size of all files, or to more
            if kept files are copied again.

    Returns:
        The files that were copied.

    Raises:
        SettingsError: another copy writes into the destination, or has put another set there.
        DataError: a file of the source is damaged, or a store cannot be used.
        OSError: a disk fails.
    """
    copied: list[SetFile] = []
    stopped = threading.Event()

    def moved_unless_stopped(size_bytes: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        moved(size_bytes)

    def bring(file: SetFile) -> None:
        if file.name in plan.kept and (not verify or is_same(plan.source, plan.target, file)):
            moved_unless_stopped(file.size_bytes)
            return
        copy_file(plan.source, plan.target, file, work, moved_unless_stopped)
        copied.append(file)

    with _only_copy(plan.target):
        _check_space(plan)
        files = plan.files
        if _claim(plan):
            copied.append(files[0])
            moved(files[0].size_bytes)
            files = files[1:]
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(bring, file) for file in files]
            try:
                _wait_for(jobs)
            finally:
                stopped.set()
                pool.shutdown(wait=True, cancel_futures=True)
        _freeze(plan)
    return copied


def _claim(plan: CopyPlan) -> bool:
    """Put the index into an object store, unless there is one; returns whether it is done.

    Raises:
        SettingsError: another set is being copied to the same place.
        DataError: the index is damaged.
    """
    index = plan.files[0]
    if plan.frozen or isinstance(plan.target, Path) or index.size_bytes > _LARGE_INDEX_BYTES:
        return False
    data = (plan.source / INDEX_NAME).read_bytes()
    check_hash(plan.source / INDEX_NAME, hashlib.sha256(data).hexdigest(), index)
    created = (plan.target / INDEX_NAME).create(data)
    if not created:
        _refuse_other_index(plan.source, plan.target, index)
    return created


def _refuse_other_index(source: Location, target: Location, index: SetFile) -> None:
    if not is_same(source, target, index):
        raise SettingsError(
            f"{target / INDEX_NAME}: is not the index of this set; give an empty DST, or one where a copy of this set "
            "was interrupted"
        )


def _check_space(plan: CopyPlan) -> None:
    if not isinstance(plan.target, Path):
        return
    needed_bytes, free_bytes = sum(file.size_bytes for file in plan.missing), shutil.disk_usage(plan.target).free
    if needed_bytes > free_bytes:
        raise DataError(
            f"{plan.target}: needs {size(needed_bytes)} more, but only {size(free_bytes)} are free; free some space"
        )


class _StoppedError(Exception):
    """Another file failed, or the user stopped the copy."""


def _wait_for(jobs: Sequence[Future[None]]) -> None:
    done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
    for job in done:
        job.result()


def _freeze(plan: CopyPlan) -> None:
    sizes = sizes_below(plan.target)
    for file in plan.files:
        if sizes.get(file.name) != file.size_bytes:
            raise DataError(
                f"{plan.target / file.name}: has {sizes.get(file.name, 0):,} of {file.size_bytes:,} bytes after it was "
                "copied; does something else write there? rerun the same command to resume"
            )
    if is_frozen_copy(plan.target, plan.lock, plan.lock_bytes):
        return
    lock = plan.target / LOCK_NAME
    if isinstance(lock, Path):
        write_whole(lock, plan.lock_bytes)
    elif not lock.create(plan.lock_bytes):
        is_frozen_copy(plan.target, plan.lock, plan.lock_bytes)  # raises: another set was first


@contextlib.contextmanager
def _only_copy(target: Location) -> Iterator[None]:
    """Keep other copies out of a folder on disk. Copies into an object store do not disturb each other."""
    if isinstance(target, ObjectPath):
        yield
        return
    target.mkdir(parents=True, exist_ok=True)
    path = target / COPY_LOCK_NAME
    with lock_folder(path, whose=f"{target}: another copy writes into it", instead="wait for it"):
        try:
            remove_temporaries(target)
            yield
        finally:
            path.unlink(missing_ok=True)
