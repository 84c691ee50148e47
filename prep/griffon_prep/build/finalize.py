"""The last step of a build: write the index, the reject list, the files for other loaders and finally the lock."""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson

from griffon_prep.build.plan import PlannedSource
from griffon_prep.build.report import ShardReport, read_report
from griffon_prep.build.settings import BuildSettings
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.interop import write_peer_files
from griffon_shards.lock import REJECTS_NAME, Lock, ShardEntry, SourceEntry, write_lock
from griffon_shards.support.files import sha256_of, whole_file


def freeze(out: Path, settings: BuildSettings, planned: Sequence[PlannedSource]) -> Lock:
    """Write everything but the shards, which are all finished; the lock comes last. Returns the lock."""
    shards: list[ShardEntry] = []
    sources: list[SourceEntry] = []
    reports = [[report for report, _ in _finished(source)] for source in planned]
    with whole_file(out / INDEX_NAME) as index:
        index.write(index_header(sum(report.samples for source in reports for report in source)))
        for number, source in enumerate(planned):
            for report, raw in _finished(source):
                if not report.samples:
                    continue
                rows = np.frombuffer(raw, INDEX_DTYPE).copy()
                rows["shard"], rows["source"] = len(shards), number
                index.write(rows.tobytes())
                shards.append(_shard_entry(report))
            sources.append(_source_entry(source, reports[number]))
    with whole_file(out / REJECTS_NAME) as rejects:
        for source, finished in zip(planned, reports, strict=True):
            for report in finished:
                for reject in report.rejects:
                    line = {"source": source.source.tag, "record": reject.record}
                    rejects.write(orjson.dumps({**line, "reason": reject.reason, "detail": reject.detail}) + b"\n")
    write_peer_files(out, {shard.name: shard.samples for shard in shards})
    lock = Lock(
        tool_version=version("griffon-pipeline"),
        library_versions={name: version(name) for name in ("numpy", "orjson", "pillow")},
        render=settings.lock_settings(),
        sources=tuple(sources),
        shards=tuple(shards),
        index_sha256=sha256_of(out / INDEX_NAME),
    )
    return write_lock(out, lock)


def _finished(source: PlannedSource) -> Iterator[tuple[ShardReport, bytes]]:
    for number in range(source.shard_count):
        report = read_report(source.work, number)
        assert report is not None, f"shard {number} of {source.source.tag} was not made"
        yield report


def _shard_entry(report: ShardReport) -> ShardEntry:
    return ShardEntry(
        name=report.name,
        samples=report.samples,
        bytes=report.bytes,
        sha256=report.sha256,
        dropped_boxes=report.dropped_boxes,
    )


def _source_entry(planned: PlannedSource, reports: Sequence[ShardReport]) -> SourceEntry:
    rejected = Counter(reject.reason for report in reports for reject in report.rejects)
    return SourceEntry(
        tag=planned.source.tag,
        task=planned.source.task,
        format=planned.source.format,
        annotation=planned.source.annotation_name,
        annotation_bytes=planned.scanned.annotation_bytes,
        annotation_sha256=planned.scanned.annotation_sha256,
        companions=planned.scanned.companions,
        options={name: value for name, value in planned.source.options.items() if name != "format"},
        records=planned.scanned.records,
        samples=sum(report.samples for report in reports),
        rejected=dict(sorted(rejected.items())),
        weight=planned.source.weight,
    )
