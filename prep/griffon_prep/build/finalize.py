"""The last step of a build: write the index, the reject list, the files for other loaders and finally the lock."""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
import orjson

from griffon_prep.build.folder import BuildFolder
from griffon_prep.build.identity import source_identity
from griffon_prep.build.output import Output
from griffon_prep.build.plan import build_jobs, shard_count
from griffon_prep.build.report import ShardReport, made_report
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import missing_shard
from griffon_prep.readers.folders import bytes_of_input
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.scan import ScannedSource
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.interop import write_peer_files
from griffon_shards.lock import REJECTS_NAME, Lock, ShardEntry, SourceEntry
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import sha256_of, whole_file
from griffon_shards.support.tables import counted
from griffon_shards.support.worker_pool import Engine

_NAMES = 3  # missing shards that the message names


def check_begun(folder: BuildFolder) -> None:
    """Raise DataError if the folder holds no unfinished build."""
    if folder.plan() is None:
        raise DataError(
            f"{folder.out}: --finish has nothing to finish, as no part of the build has run here; run the same command "
            "with --part 1/N to --part N/N first, or without --finish"
        )


def check_all_made(
    scanned: Sequence[ScannedSource], settings: BuildSettings, folder: BuildFolder, pool: Engine
) -> None:
    """Check that every shard is complete on disk.

    Raises:
        DataError: some are missing; the message names shards, and the parts that make them.
    """
    jobs = list(build_jobs(scanned, settings.render, folder.output))
    missing = set(pool.run(missing_shard, jobs)) - {None}
    if not missing:
        return
    places = [place for place, job in enumerate(jobs) if job.name in missing]
    names = ", ".join(jobs[place].name for place in places[:_NAMES]) + (", ..." if len(places) > _NAMES else "")
    parts, again = "", "run the missing parts"
    if count := folder.parts():
        numbers = ",".join(map(str, sorted({place % count + 1 for place in places})))  # as `sbatch --array` takes them
        parts, again = f" (of the {count} parts: {numbers})", "run these parts"
    raise DataError(
        f"{folder.out}: {len(places):,} of {counted(len(jobs), 'shard')} missing: {names}{parts}; {again} again and "
        "then --finish, or run the same command without --finish to make them here"
    )


def freeze(out: Output, settings: RenderSettings, scanned: Sequence[ScannedSource]) -> Lock:
    """Write everything but the shards, which are all finished; the lock comes last. Returns the lock.

    Raises:
        DataError: a report is missing, or another builder has frozen another set there.
        OSError: the storage fails.
    """
    stage = out.stage
    shards: list[ShardEntry] = []
    sources: list[SourceEntry] = []
    reports = [[report for report, _ in _finished(source, settings)] for source in scanned]
    with whole_file(stage / INDEX_NAME) as index:
        index.write(index_header(sum(report.samples for source in reports for report in source)))
        for source_no, source in enumerate(scanned):
            for report, raw in _finished(source, settings):
                if not report.samples:
                    continue
                rows = np.frombuffer(raw, INDEX_DTYPE).copy()
                rows["shard"], rows["source"] = len(shards), source_no
                index.write(rows.tobytes())
                shards.append(_shard_entry(report))
            sources.append(_source_entry(source, reports[source_no]))
    with whole_file(stage / REJECTS_NAME) as rejects:
        for source, finished in zip(scanned, reports, strict=True):
            for report in finished:
                for reject in report.rejects:
                    line = {"source": source.source.tag, "record": reject.record}
                    rejects.write(orjson.dumps({**line, "reason": reject.reason, "detail": reject.detail}) + b"\n")
    peers = write_peer_files(stage, {shard.name: shard.samples for shard in shards})
    for name in (INDEX_NAME, REJECTS_NAME, *peers):
        out.put(name)
    lock = Lock(
        tool_version=version("griffon-pipeline"),
        library_versions={name: version(name) for name in ("numpy", "orjson", "pillow")},
        render=settings.in_lock(),
        sources=tuple(sources),
        shards=tuple(shards),
        index_sha256=sha256_of(stage / INDEX_NAME),
    )
    return out.freeze(lock)


def _finished(source: ScannedSource, settings: RenderSettings) -> Iterator[tuple[ShardReport, bytes]]:
    for shard_no in range(shard_count(source, settings)):
        yield made_report(source.files.work, shard_no)


def _shard_entry(report: ShardReport) -> ShardEntry:
    return ShardEntry(
        name=report.name,
        samples=report.samples,
        bytes=report.bytes,
        sha256=report.sha256,
        dropped_boxes=report.dropped_boxes,
    )


def _source_entry(scanned: ScannedSource, reports: Sequence[ShardReport]) -> SourceEntry:
    source = scanned.source
    rejected = Counter(reject.reason for report in reports for reject in report.rejects)
    identity = source_identity(source, scanned.sha256s)
    identity["options"].pop("format", None)
    return SourceEntry(
        **identity,
        format=source.format,
        annotation_bytes=bytes_of_input(source.annotation),
        records=scanned.records,
        samples=sum(report.samples for report in reports),
        rejected=dict(sorted(rejected.items())),
        weight=source.weight,
    )
