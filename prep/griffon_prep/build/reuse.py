"""`--reuse OLD`: shards of unchanged sources are linked or copied from another set and count as finished."""

import errno
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.build.identity import identity_of_lock, source_identity
from griffon_prep.build.output import Output
from griffon_prep.build.plan import shard_jobs
from griffon_prep.build.report import Reject, ShardReport, read_report
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import ShardJob, record_numbers, store_report
from griffon_prep.sources.scan import ScannedSource
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.index import INDEX_NAME, idx_path
from griffon_shards.lock import REJECTS_NAME, ShardEntry
from griffon_shards.shard_bytes import shard_bytes
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.transfer import fetch
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import sha256_of, sync_folder, whole_file

_AT_ONCE = 4  # shards


def take_unchanged(old: FrozenSet, out: Output, settings: BuildSettings, scanned: Sequence[ScannedSource]) -> list[str]:
    """Take the shards of unchanged sources into a started build and write their reports. Returns the reused tags.

    They are linked where both sets are on one disk, and copied otherwise, a few at a time.

    A source is unchanged if its task, annotation and options are the same and no setting that changes bytes differs.
    Shards are checked by size only and not read; `griffon-shards verify` reads them.

    Raises:
        DataError: the other set's index or reject list is damaged.
    """
    if isinstance(old.root, Path) and (sha256 := sha256_of(old.root / INDEX_NAME)) != old.lock.index_sha256:
        raise DataError(
            f"{old.root / INDEX_NAME}: damaged, its SHA-256 is {sha256}; this set cannot be reused, omit --reuse"
        )
    before = identity_of_lock(old.lock, settings)
    if before["render"] != settings.render.in_lock():
        return []
    unchanged = {source["tag"]: source for source in before["sources"]}
    rejects = _rejects_by_source(old)
    shard_indices = {shard.name: index for index, shard in enumerate(old.lock.shards)}
    bounds = np.searchsorted(old.index["shard"], np.arange(len(shard_indices) + 1)).tolist()
    reused: list[str] = []
    copies: list[tuple[int, ShardJob]] = []
    for source in scanned:
        tag = source.source.tag
        if unchanged.get(tag) != source_identity(source.source, source.sha256s):
            continue
        for job in shard_jobs(source, settings.render, out):
            shard_index = shard_indices.get(job.name)
            if shard_index is not None and read_report(job.work, job.shard_no) is None:
                copies.append((shard_index, job))
        reused.append(tag)

    def take(copy: tuple[int, ShardJob]) -> None:
        shard_index, job = copy
        rows = old.index[bounds[shard_index] : bounds[shard_index + 1]]
        if sizes.get(job.name) == old.lock.shards[shard_index].bytes:  # else it is truncated: make it again
            _take_shard(old, shard_index, rows, job, rejects[job.tag])

    sizes = shard_bytes(old.root).sizes([job.name for _, job in copies])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(take, copies):
            pass
    return reused


def _take_shard(
    old: FrozenSet, shard_index: int, rows: NDArray[np.void], job: ShardJob, rejects: dict[int, Reject]
) -> None:
    assert job.out is not None
    entry: ShardEntry = old.lock.shards[shard_index]
    origin: Location = old.root / entry.name
    with job.out.shard(entry.name) as target:
        if isinstance(origin, ObjectPath):
            fetch(origin, target, size_bytes=entry.bytes)
            fetch(idx_path(origin), idx_path(target))
        else:
            _link(origin, target)
            _link(idx_path(origin), idx_path(target))
            sync_folder(target.parent)
    report = ShardReport(
        tag=job.tag,
        shard_no=job.shard_no,
        name=entry.name,
        samples=entry.samples,
        bytes=entry.bytes,
        sha256=entry.sha256,
        rejects=tuple(rejects[record] for record in record_numbers(job) if record in rejects),
        dropped_boxes=entry.dropped_boxes,
    )
    store_report(job, report, rows.tobytes())


def _link(origin: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(origin, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        with origin.open("rb") as source, whole_file(target) as copy:  # hard links across file systems are impossible
            shutil.copyfileobj(source, copy, 1 << 20)


def _rejects_by_source(old: FrozenSet) -> dict[str, dict[int, Reject]]:
    rejects: dict[str, dict[int, Reject]] = defaultdict(dict)
    fault = DataError(
        f"{old.root / REJECTS_NAME}: does not match the counts in the lock; this set cannot be reused, omit --reuse"
    )
    try:
        for line in (old.root / REJECTS_NAME).read_bytes().splitlines():
            fields = orjson.loads(line)
            source = fields.pop("source")
            rejects[source][fields["record"]] = Reject(**fields)
    except (FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
        raise fault from None
    for source in old.lock.sources:
        if Counter(reject.reason for reject in rejects[source.tag].values()) != Counter(source.rejected):
            raise fault
    return rejects
