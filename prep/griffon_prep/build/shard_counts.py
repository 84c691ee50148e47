"""Counts of a build's samples for its report. Each job counts its shard as it makes it; they are added up at the end.

A shard that was finished before without being counted (hard-linked from another set, or made with --no-report) is read
again, in the worker processes. The counts of a frozen set's sources stay in its work folder, so that `--reuse` need not
read the images of unchanged sources.
"""

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO

import numpy as np

from griffon_prep.build.machines import prepare
from griffon_prep.build.output import WORK_NAME, Output
from griffon_prep.build.plan import shard_jobs
from griffon_prep.build.report import counts_path, read_report
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import ShardJob
from griffon_prep.sources.scan import ScannedSource
from griffon_shards.index import INDEX_DTYPE
from griffon_shards.sample_json import decode_sample
from griffon_shards.shard_bytes import shard_bytes
from griffon_shards.stats.counts import SetCounts, SourceCounts
from griffon_shards.stats.counts_file import decode_counts, encode_counts
from griffon_shards.storage import Location
from griffon_shards.support.files import write_whole
from griffon_shards.support.tables import size
from griffon_shards.support.worker_pool import Engine
from griffon_shards.tar import split_sample

_log = logging.getLogger(__name__)

_SAMPLES_AT_ONCE = 64

_Shard = tuple[ShardJob, str, int]  # with the shard's SHA-256 and its bytes


def gather_counts(
    scanned: Sequence[ScannedSource], settings: BuildSettings, out: Output, reused: Location | None, pool: Engine
) -> None:
    """Write the counts of each source into the work folder of a build whose shards are all finished, for its report.

    Args:
        scanned: the sources.
        settings: the settings of the build.
        out: where the set goes.
        reused: the set that unchanged sources were linked from, or None.
        pool: counts shards that nobody has counted.
    """
    if not settings.report:
        return
    merged: dict[str, SourceCounts] = {}
    hashes: dict[str, str] = {}
    missing: list[_Shard] = []
    for source in scanned:
        tag, shards = source.source.tag, list(_shards(source, settings, out))
        hashes[tag] = _hash_of(sha256 for _, sha256, _ in shards)
        if reused is not None and _copy_counts(reused, out, tag, hashes[tag]):
            continue
        merged[tag] = SourceCounts()
        missing += [shard for shard in shards if not _merge_shard(merged[tag], shard)]
    if missing:
        total = size(sum(tar_bytes for _, _, tar_bytes in missing))
        _log.info(f"counting {len(missing):,} finished shards ({total}) for report.html; --no-report leaves it out")
        for shard, data in pool.run(_count_shard, missing):
            job = shard[0]
            counts_path(job.work, job.shard_no).write_bytes(data)
            counted = _merge_shard(merged[job.tag], shard)
            assert counted, f"{job.name} was not counted"
    for tag, counts in merged.items():
        _write_counts(out, tag, encode_counts(counts, hashes[tag]))


def read_counts(root: Location, style: str, shards_by_tag: dict[str, list[str]]) -> SetCounts | None:
    """The counts of a frozen set from its work folder, or None if those of a source are missing.

    Args:
        root: the set's folder or URL.
        style: how its answers write boxes.
        shards_by_tag: the SHA-256 of the shards of each source.
    """
    counts = SetCounts(style)
    for tag, sha256s in shards_by_tag.items():
        data = _read(root / _counts_name(tag))
        own = None if data is None else decode_counts(data, _hash_of(sha256s))
        if own is None:
            return None
        counts.sources[tag] = own
    return counts


def _shards(source: ScannedSource, settings: BuildSettings, out: Output) -> Iterator[_Shard]:
    """The finished shards of a source that have samples."""
    for job in shard_jobs(source, settings.render, out):
        finished = read_report(job.work, job.shard_no)
        assert finished is not None, f"{job.name} was not made"
        if finished[0].samples:
            yield job, finished[0].sha256, finished[0].bytes


def _count_shard(shard: _Shard) -> tuple[_Shard, bytes]:
    """Count a shard from its tar; returns the shard and its counts as a file's content."""
    job, sha256, _ = shard
    prepare(job.source, job.out)
    finished = read_report(job.work, job.shard_no)
    assert job.out is not None and finished is not None
    counts = SourceCounts()
    tar, name = shard_bytes(job.out.root), str(job.out.root / job.name)
    rows = np.frombuffer(finished[1], INDEX_DTYPE)
    for first in range(0, len(rows), _SAMPLES_AT_ONCE):
        sizes = rows["bytes"][first : first + _SAMPLES_AT_ONCE].tolist()
        data = BytesIO(tar.read(job.name, int(rows["offset"][first]), sum(sizes)))
        for sample_bytes in sizes:
            key, image, json = split_sample(data.read(sample_bytes), name)
            counts.add(decode_sample(key, image, json), job.settings.boxes, None)
    return shard, encode_counts(counts, sha256)


def _merge_shard(merged: SourceCounts, shard: _Shard) -> bool:
    """Add the counts of a shard; returns whether they are there."""
    job, sha256, _ = shard
    data = _read(counts_path(job.work, job.shard_no))
    counts = None if data is None else decode_counts(data, sha256)
    if counts is None:
        return False
    merged.merge(counts)
    return True


def _copy_counts(reused: Location, out: Output, tag: str, counted: str) -> bool:
    """Take the counts of a source from the set that it was linked from; returns whether they are there."""
    data = _read(reused / _counts_name(tag))
    if data is None or decode_counts(data, counted) is None:
        return False
    _write_counts(out, tag, data)
    return True


def _write_counts(out: Output, tag: str, data: bytes) -> None:
    write_whole(out.stage / _counts_name(tag), data)
    out.put(_counts_name(tag))


def _counts_name(tag: str) -> str:
    return f"{WORK_NAME}/{tag}.counts"


def _hash_of(sha256s: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sha256s).encode()).hexdigest()


def _read(path: Location) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
