"""Where a set goes: a folder on disk, in which its files are made; or a URL, to which each finished file is put.

Files are made below `stage`, a folder on this machine, and then put. Of a set on disk, that is its own folder, and
nothing is left to do.
"""

import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Hashable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from griffon_prep.build.report import read_report
from griffon_shards.index import idx_path
from griffon_shards.lock import LOCK_NAME, Lock, lock_bytes, read_lock, write_lock
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.transfer import fetch_folder
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import TEMPORARY_PREFIX

_log = logging.getLogger(__name__)

WORK_NAME = ".griffon-build"
_FROZEN_BY = f"{WORK_NAME}/frozen-by"
_KEPT = (".report", ".counts")  # work files that another machine can resume with


class Output(Hashable, Protocol):
    """The place of a set that is being built. Outputs are small, hashable and picklable."""

    @property
    def root(self) -> Location:
        """The set's folder or URL."""

    @property
    def stage(self) -> Path:
        """The folder on this machine in which the set's files are made."""

    def shard(self, name: str) -> AbstractContextManager[Path]:
        """Context manager with the path to make a shard at, and its offsets beside it. At its end both are put.

        Raises:
            StorageError: the object store cannot be used.
            OSError: the disk fails.
        """

    def put(self, name: str) -> None:
        """Put the file with this name below `stage`, if it is there. Raises as `shard`."""

    def has_shard(self, name: str, shard_bytes: int, offsets: bytes) -> bool:
        """Whether the shard of a finished report is complete. Raises as `shard`."""

    def fetch_reports(self, tags: Iterable[str]) -> None:
        """Fetch the reports of these sources' shards that other machines have finished. Raises as `shard`."""

    def freeze(self, lock: Lock) -> Lock:
        """Put the lock, which freezes the set; returns it with its digest.

        Raises:
            DataError: another builder has frozen another set here.
            OSError: the disk fails.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutput:
    """A set in a folder."""

    root: Path

    @property
    def stage(self) -> Path:
        """Implement `Output.stage`."""
        return self.root

    @contextmanager
    def shard(self, name: str) -> Iterator[Path]:
        """Implement `Output.shard`."""
        tar = self.root / name
        tar.parent.mkdir(parents=True, exist_ok=True)
        yield tar

    def put(self, name: str) -> None:
        """Implement `Output.put`: it is there."""

    def has_shard(self, name: str, shard_bytes: int, offsets: bytes) -> bool:
        """Implement `Output.has_shard`."""
        tar = self.root / name
        try:
            return tar.stat().st_size == shard_bytes and idx_path(tar).read_bytes() == offsets
        except FileNotFoundError:
            return False

    def fetch_reports(self, tags: Iterable[str]) -> None:
        """Implement `Output.fetch_reports`: all machines share the folder."""

    def freeze(self, lock: Lock) -> Lock:
        """Implement `Output.freeze`."""
        return write_lock(self.root, lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectOutput:
    """A set in an object store. Each object gets its final name as one whole put, and the lock is put last.

    Attributes:
        root: the set's URL.
        stage: the folder on this machine in which the set's files are made.
    """

    root: ObjectPath
    stage: Path

    @contextmanager
    def shard(self, name: str) -> Iterator[Path]:
        """Implement `Output.shard`. The names on disk are temporary, as two processes may make the same shard."""
        tar = self.stage / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}-{Path(name).name}"
        try:
            yield tar
            if tar.exists() and not self._frozen():
                (self.root / name).upload(tar)
                (self.root / f"{name}.idx").write_bytes(idx_path(tar).read_bytes())
        finally:
            tar.unlink(missing_ok=True)
            idx_path(tar).unlink(missing_ok=True)

    def put(self, name: str) -> None:
        """Implement `Output.put`. No file of a set is put once another builder has frozen it."""
        path = self.stage / name
        if path.exists() and (name.startswith(f"{WORK_NAME}/") or not self._frozen()):
            (self.root / name).upload(path)

    def has_shard(self, name: str, shard_bytes: int, offsets: bytes) -> bool:
        """Implement `Output.has_shard`: `fetch_reports` has left no report of a shard that is not there."""
        return True

    def fetch_reports(self, tags: Iterable[str]) -> None:
        """Implement `Output.fetch_reports`. Reports whose shards are not there, or differ in size, are removed."""
        for tag in tags:
            self._fetch_reports_of(tag)

    def _fetch_reports_of(self, tag: str) -> None:
        there = self.root / WORK_NAME / tag
        here = self.stage / WORK_NAME / tag
        kept = {name: size_bytes for name, size_bytes in there.listing() if name.endswith(_KEPT)}
        fetch_folder(there, here, keep=kept.__contains__)
        reports = [*here.glob("*.report")]  # before shards are listed: other processes may be making some just now
        sizes = {f"{tag}/{name}": size_bytes for name, size_bytes in (self.root / tag).listing()}
        for path in reports:
            finished = read_report(here, int(path.stem))
            report = finished[0] if finished is not None else None
            if report is None or (
                report.samples
                and (sizes.get(report.name), sizes.get(f"{report.name}.idx")) != (report.bytes, 8 * report.samples + 8)
            ):
                path.unlink(missing_ok=True)

    def freeze(self, lock: Lock) -> Lock:
        """Implement `Output.freeze`."""
        sizes = dict(self.root.listing())
        for shard in lock.shards:
            if sizes.get(shard.name) != shard.bytes and LOCK_NAME not in sizes:
                raise DataError(
                    f"{self.root / shard.name}: has {sizes.get(shard.name, 0):,} of {shard.bytes:,} bytes, because "
                    "another builder with other images writes here; stop it, and rerun the same command"
                )
        complete, data = lock_bytes(lock)
        builder = _builder()
        claimed = (self.root / _FROZEN_BY).create(builder)
        if (self.root / LOCK_NAME).create(data):
            if not claimed:  # by one that was killed before it put the lock
                (self.root / _FROZEN_BY).write_bytes(builder)
            return complete
        frozen = read_lock(self.root)
        if frozen.digest != complete.digest:
            raise DataError(
                f"{self.root}: was frozen first by {self._frozen_by()}, with other content (digest "
                f"{frozen.digest[:12]}, this build has {complete.digest[:12]}); the images differ between the two "
                "machines; give one of them another --out"
            )
        if self._first_builder() != builder:  # otherwise the answer to our own request was lost
            _log.info(f"{self.root}: was frozen first by {self._frozen_by()}; the digest is the same")
        return frozen

    def _frozen(self) -> bool:
        return (self.root / LOCK_NAME).exists()

    def _frozen_by(self) -> str:
        try:
            builder = json.loads(self._first_builder())
            return f"process {builder['process']} on {builder['host']} at {builder['time']}"
        except (ValueError, KeyError, TypeError):
            return "another builder"

    def _first_builder(self) -> bytes:
        """What the builder that claimed to freeze the set says of itself; empty if somebody has deleted it."""
        try:
            return (self.root / _FROZEN_BY).read_bytes()
        except FileNotFoundError:
            return b""

    def clear_stage(self) -> None:
        """Remove the files of a frozen set from this machine; its work files are left."""
        for path in self.stage.iterdir():
            if path.name == WORK_NAME:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _builder() -> bytes:
    """The process that freezes a set, for another one that comes second."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    own = {"process": os.getpid(), "host": socket.gethostname(), "time": time, "token": secrets.token_hex(8)}
    return json.dumps(own).encode()
