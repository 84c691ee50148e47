"""Making one shard: a function of a small picklable job, so that any engine can run it on any machine.

Without an output folder, the same function serves `check`, `--recheck` and the size estimate.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from griffon_prep.build.machines import check_unchanged, prepare
from griffon_prep.build.output import WORK_NAME, Output
from griffon_prep.build.report import Reject, ShardReport, counts_path, read_report, report_path, write_report
from griffon_prep.build.sample_maker import SampleMaker, boxes_written, text_chars
from griffon_prep.readers import FORMATS
from griffon_prep.readers.rounds import Rounds
from griffon_prep.records import Rejected
from griffon_prep.render.settings import RenderSettings, Source
from griffon_prep.sources.exclusion import Exclusion, read_excluded_keys, read_exclusion_list
from griffon_prep.sources.part import read_part, visual_genome_of
from griffon_prep.sources.scan import ScannedSource, naming_source, read_vocabulary
from griffon_shards.index import INDEX_DTYPE, idx_bytes, idx_path, write_idx
from griffon_shards.permutation import permutation_key, permute
from griffon_shards.sample_json import encode_sample
from griffon_shards.stats.counts import SourceCounts
from griffon_shards.stats.counts_file import encode_counts
from griffon_shards.support.files import begin_write_back, whole_file
from griffon_shards.tar import END_OF_ARCHIVE, crc32, sample_bytes
from griffon_shards.types import TASKS, Sample

_MAX_BOXES = 0xFFFF
_FIXABLE_BY_FILES = frozenset({"picture_not_found", "picture_unreadable", "size_mismatch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One shard to make.

    Attributes:
        source: the scanned source.
        settings: settings that change bytes.
        out: where the set goes, or None to write nothing.
        shard_no: number of the shard within its source.
        first: first position in the shuffled order that belongs to the shard.
        stop: one past the last position.
        counted: also count the samples, for the build's report.
    """

    source: ScannedSource
    settings: RenderSettings
    out: Output | None
    shard_no: int
    first: int
    stop: int
    counted: bool = False

    @property
    def tag(self) -> str:
        """The source's tag."""
        return self.source.source.tag

    @property
    def work(self) -> Path:
        """The source's work folder."""
        return self.source.files.work

    @property
    def name(self) -> str:
        """The shard's name in the set."""
        return f"{self.tag}/{self.tag}-{self.shard_no:06d}.tar"


def make_shard(job: ShardJob) -> ShardReport:
    """Make a shard, or return the report of the finished one.

    A finished shard is made again if an image that it lacked is there now. A build that stopped because of missing
    images can thus be resumed once they have been added.

    Raises:
        OSError: the storage fails or is full.
        DataError: an annotation is damaged, or has changed.
    """
    copies = prepare(job.source, job.out)
    maker = _maker(job.source, job.settings)
    if job.out is None:
        with naming_source(job.source.source, job.source.files):
            report, _ = _make_samples(job, maker, None, None)
            check_unchanged(job.source, copies)
            return report
    if finished := _finished(job, maker):
        return finished
    counts = SourceCounts() if job.counted else None
    with naming_source(job.source.source, job.source.files), job.out.shard(job.name) as tar:
        with whole_file(tar) as file:
            report, rows = _make_samples(job, maker, file, counts)
            check_unchanged(job.source, copies)
        if report.samples:
            write_idx(tar, rows["offset"].tolist(), report.bytes - len(END_OF_ARCHIVE))
        else:
            tar.unlink(missing_ok=True)  # another process may be making the same shard
            idx_path(tar).unlink(missing_ok=True)
    if counts is not None:
        counts_path(job.work, job.shard_no).write_bytes(encode_counts(counts, report.sha256))
        job.out.put(counts_path(Path(WORK_NAME, job.tag), job.shard_no).as_posix())
    store_report(job, report, rows.tobytes())
    return report


def store_report(job: ShardJob, report: ShardReport, rows: bytes) -> None:
    """Write the report of a finished shard, for this machine and for others."""
    assert job.out is not None
    write_report(job.work, report, rows)
    job.out.put(report_path(Path(WORK_NAME, job.tag), job.shard_no).as_posix())


def _make_samples(
    job: ShardJob, maker: SampleMaker, file: BinaryIO | None, counts: SourceCounts | None
) -> tuple[ShardReport, NDArray[np.void]]:
    """Make the samples of a shard, write and count them; returns the report and the index rows, shape [samples]."""
    rows = np.zeros(job.stop - job.first, INDEX_DTYPE)
    digest = hashlib.sha256()
    rejects: list[Reject] = []
    dropped: Counter[str] = Counter()
    offset = samples = written_back = by_last_part = 0
    for record_no, made in maker.make_all(record_numbers(job)):
        if isinstance(made, Rejected):
            rejects.append(Reject(record=record_no, reason=made.reason, detail=made.detail))
            continue
        sample, dropped_here, by_name = made
        raw = sample_bytes(sample.key, sample.image, encode_sample(sample))
        rows[samples] = _row(sample, raw, offset, job.settings.boxes)
        digest.update(raw)
        if file is not None:
            file.write(raw)
            written_back = begin_write_back(file, written_back, offset)
        if counts is not None:
            counts.add(sample, job.settings.boxes, None)
        dropped.update(dropped_here)
        offset += len(raw)
        samples += 1
        by_last_part += by_name
    digest.update(END_OF_ARCHIVE)
    if file is not None:
        file.write(END_OF_ARCHIVE)
    report = ShardReport(
        tag=job.tag,
        shard_no=job.shard_no,
        name=job.name,
        samples=samples,
        bytes=offset + len(END_OF_ARCHIVE) if samples else 0,
        sha256=digest.hexdigest() if samples else "",
        rejects=tuple(rejects),
        dropped_boxes=dict(sorted(dropped.items())),
        by_last_part=by_last_part,
    )
    return report, rows[:samples]


def record_numbers(job: ShardJob) -> list[int]:
    """The record numbers at the job's positions in the source's shuffled order."""
    key = permutation_key("records", job.settings.seed, job.tag)
    if job.first == job.stop:  # of an empty part
        return []
    places = permute(np.arange(job.first, job.stop), job.source.records, key)
    numbers: list[int] = (places if job.source.source.part is None else read_part(job.work)[places]).tolist()
    return numbers


def _row(sample: Sample, raw: bytes, offset: int, style: str) -> tuple[int, ...]:
    """The sample's index row. Shard and source numbers are 0 until the set is frozen."""
    boxes = min(boxes_written(sample, style), _MAX_BOXES)
    task, has_image = TASKS.index(sample.task), int(sample.image is not None)
    return (0, offset, len(raw), crc32(raw), sample.origin.record, 0, task, has_image, boxes, text_chars(sample))


@lru_cache(maxsize=4)
def _maker(scanned: ScannedSource, settings: RenderSettings) -> SampleMaker:
    """The sample maker of a source. Each process keeps the most recent ones open."""
    source, work = scanned.source, scanned.files.work
    return SampleMaker(
        reader=FORMATS[source.format].Reader(scanned.files),
        rounds=Rounds(work) if source.rounds > 1 else None,
        source=Source(tag=source.tag, task=source.task, vocabulary=read_vocabulary(work)),
        settings=settings,
        annotation_name=source.file_names[0],
        image_root=source.image_root,
        upright=source.upright,
        exclusion=_exclusion(scanned),
    )


def _exclusion(scanned: ScannedSource) -> Exclusion | None:
    source = scanned.source
    if not source.exclude and not source.exclude_keys:
        return None
    return Exclusion(
        lists=tuple(map(read_exclusion_list, source.exclude)),
        keys=tuple((path.name, read_excluded_keys(path)[source.tag]) for path in source.exclude_keys),
        image_root=source.image_root.rpartition("://")[2],
        visual_genome=visual_genome_of(scanned.files) if source.exclude else None,
    )


def _finished(job: ShardJob, maker: SampleMaker) -> ShardReport | None:
    """The report of a shard that is complete and would come out the same if made again, or None."""
    report = _report_of_complete(job)
    if report is None:
        return None
    for reject in report.rejects:
        if reject.reason not in _FIXABLE_BY_FILES:
            continue
        try:
            maker.make(reject.record)
        except Rejected as rejected:
            if rejected.reason == reject.reason:
                continue
        return None
    return report


def missing_shard(job: ShardJob) -> str | None:
    """The shard's name if it is not complete, or None."""
    prepare(job.source, job.out)
    return None if _report_of_complete(job) else job.name


def _report_of_complete(job: ShardJob) -> ShardReport | None:
    """The report of a shard that is complete, or None."""
    assert job.out is not None
    finished = read_report(job.work, job.shard_no)
    if finished is None:
        return None
    report, raw = finished
    if not report.samples:
        return report
    offsets = idx_bytes(np.frombuffer(raw, INDEX_DTYPE)["offset"].tolist(), report.bytes - len(END_OF_ARCHIVE))
    return report if job.out.has_shard(job.name, report.bytes, offsets) else None
