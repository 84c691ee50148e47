"""Preparing machines that share no disk with the one that the command runs on, so that they can run its jobs.

Such a machine fetches the annotations itself, and with a set at a URL it also scans them and fetches the reports of
finished shards. Each of its processes asks for that before its first job of a source; the first one does it.
"""

import platform
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from griffon_prep.build.engines import LOCAL
from griffon_prep.build.output import Output
from griffon_prep.build.settings import BuildSettings
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.mirror import Mirror, fetch_companions, state_of
from griffon_prep.sources.resolve import SourceInput
from griffon_prep.sources.scan import OwnDisks, ScannedSource, naming_source, scan_source
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.folder_lock import wait_for_lock

_HASHES = "annotations.json"
_PREPARED = "prepared"  # folder of the copies' folder, with a file for each source
_JOINED = "joined"  # file in the work folder of a source
_ONE_THREAD = threading.Lock()  # executors may run jobs in threads, and a file lock is the whole process's


def own_inputs(settings: BuildSettings) -> bool:
    """Whether jobs may run on machines that do not share the copies of annotations."""
    return settings.engine != LOCAL and settings.inputs is not None


def for_other_machines(
    scanned: Sequence[ScannedSource], settings: BuildSettings, out: Location | None
) -> list[ScannedSource]:
    """Mark the sources if jobs may run on machines with disks of their own; this machine is prepared already."""
    if not own_inputs(settings):
        return list(scanned)
    assert settings.inputs is not None
    # With a set on a disk, all machines share its work folder, and thus the scans.
    own_disks = OwnDisks(run=secrets.token_hex(8), inputs=settings.inputs, scans=isinstance(out, ObjectPath))
    marked = [replace(source, own_disks=own_disks) for source in scanned]
    for source in marked:
        _mark(_prepared(own_disks, source), own_disks.run, state_of(own_disks.inputs))
        if own_disks.scans:
            _mark(_joined(source), own_disks.run)
    return marked


@lru_cache(maxsize=256)
def prepare(source: ScannedSource, out: Output | None) -> str:
    """Bring to this machine what the jobs of a source read, unless it is here; returns a text for `check_unchanged`.

    Raises:
        DataError: a file is missing, or differs from that of the command's machine.
        SettingsError: the work folder cannot be written.
        StorageError: the object store cannot be used.
        OSError: the disk fails or is full.
    """
    own_disks = source.own_disks
    if own_disks is None:
        return ""
    with _ONE_THREAD:
        _make_folder(own_disks.inputs / _PREPARED)
        state = _bring_inputs(source, own_disks)
        if own_disks.scans and out is not None:
            _join(source, own_disks, out)
        return state


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{folder}: cannot be made on {platform.node()} ({error.strerror}); give --work a folder that all machines "
            "have or can make"
        ) from None


def check_unchanged(source: ScannedSource, state: str) -> None:
    """Check that no other build on this machine has meanwhile fetched other versions of a source's annotations.

    Args:
        source: the source.
        state: what `prepare` returned.

    Raises:
        DataError: one has.
    """
    own_disks = source.own_disks
    if own_disks is not None and state_of(own_disks.inputs) != state:
        _hash(source, AnnotationHashes(own_disks.inputs / _HASHES))


def _bring_inputs(source: ScannedSource, own_disks: OwnDisks) -> str:
    """Fetch the annotations of a source and scan them; returns the state of the copies."""
    prepared = _prepared(own_disks, source)
    if (state := _marked(prepared, own_disks.run)) is not None:
        return state
    with wait_for_lock(own_disks.inputs / "prepare.lock", whose=f"{own_disks.inputs}: another worker prepares"):
        if (state := _marked(prepared, own_disks.run)) is not None:
            return state
        with Mirror(own_disks.inputs) as mirror:
            _fetch(source.source, mirror)
        state = state_of(own_disks.inputs)
        stamps = AnnotationHashes(own_disks.inputs / _HASHES)
        with naming_source(source.source, source.files):
            sha256s = _hash(source, stamps)
        stamps.save()
        if own_disks.scans:
            scan_source(source.source, sha256s, source.files.work.parent)
        _mark(prepared, own_disks.run, state)
        return state


def _fetch(source: SourceInput, mirror: Mirror) -> None:
    mirror.fetch(source.annotation)
    fetch_companions(mirror, source.annotation, source.format, source.options)
    for path in source.all_files:
        if path != source.annotation:
            mirror.fetch(path)


def _hash(source: ScannedSource, stamps: AnnotationHashes) -> dict[Path, str]:
    """The hashes of a source's files. Raises DataError if one is missing, or another than when the build began."""
    try:
        sha256s = stamps.sha256s([source.source])
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename}: missing on {platform.node()}; files that are not in an object store have to lie at "
            "the same path on all machines; if it was deleted from the store, rerun the same command"
        ) from None
    for path, sha256 in zip(source.source.all_files, source.sha256s, strict=True):
        if sha256s[path] != sha256:
            raise DataError(
                f"{path}: the file on {platform.node()} differs from the one that this build began with; if it "
                "has changed, rerun the same command, and otherwise bring the same file to all machines"
            )
    return sha256s


def _join(source: ScannedSource, own_disks: OwnDisks, out: Output) -> None:
    """Fetch the reports of the source's finished shards, so that they are not made again."""
    joined = _joined(source)
    with wait_for_lock(joined.with_suffix(".lock"), whose=f"{source.source.tag}: another worker fetches reports"):
        if _marked(joined, own_disks.run) is None:
            out.fetch_reports([source.source.tag])
            _mark(joined, own_disks.run)


def _prepared(own_disks: OwnDisks, source: ScannedSource) -> Path:
    return own_disks.inputs / _PREPARED / source.source.tag


def _joined(source: ScannedSource) -> Path:
    return source.files.work / _JOINED


def _marked(path: Path, run: str) -> str | None:
    """What a mark of this run holds, or None if there is none."""
    try:
        own, _, note = path.read_text().partition(" ")
    except FileNotFoundError:
        return None
    return note if own == run else None


def _mark(path: Path, run: str, note: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{run} {note}".encode())
