"""Makes the shards of a build in a pool of processes, and counts samples and rejects."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from griffon_prep.build.output import Output
from griffon_prep.build.plan import BuildPart, build_jobs
from griffon_prep.build.progress import Progress
from griffon_prep.build.report import Reject, ShardReport
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import make_shard
from griffon_prep.records import UNCOUNTED_REASONS
from griffon_prep.sources.scan import ScannedSource
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import counted, counts, size
from griffon_shards.support.worker_pool import Engine

_log = logging.getLogger(__name__)

_EXAMPLES = 3  # rejected records shown for each reason


@dataclass(slots=True)
class SourceCount:
    """Counts of a source's samples and rejects so far."""

    samples: int = 0
    shards: int = 0
    bytes: int = 0
    by_last_part: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dropped_boxes: Counter[str] = field(default_factory=Counter)
    used_lists: set[str] = field(default_factory=set)
    examples: dict[str, list[Reject]] = field(default_factory=dict)

    def add(self, report: ShardReport) -> None:
        """Add the counts of a finished shard."""
        self.samples += report.samples
        self.shards += bool(report.samples)
        self.bytes += report.bytes
        self.by_last_part += report.by_last_part
        self.rejected.update(reject.reason for reject in report.rejects)
        self.dropped_boxes.update(report.dropped_boxes)
        for reject in report.rejects:
            if reject.reason == "excluded":
                self.used_lists.add(reject.detail.rpartition(" is in ")[2])
            shown = self.examples.setdefault(reject.reason, [])
            if len(shown) < _EXAMPLES:
                shown.append(reject)

    @property
    def counted_rejects(self) -> int:
        """Number of rejects that count towards `--max-rejects`."""
        return sum(count for reason, count in self.rejected.items() if reason not in UNCOUNTED_REASONS)


def run_jobs(
    scanned: Sequence[ScannedSource],
    settings: BuildSettings,
    out: Output | None,
    pool: Engine,
    *,
    stop_early: bool,
    part: BuildPart | None = None,
) -> dict[str, SourceCount]:
    """Make all shards, or those of a part, and count and show progress.

    All sources share one queue, so small ones leave no worker idle.

    Raises:
        DataError: with `stop_early`, a source has more rejects than allowed.
    """
    source_counts = {source.source.tag: SourceCount() for source in scanned}
    used_records = {source.source.tag: source.used_records for source in scanned}
    jobs = list(build_jobs(scanned, settings.render, out, counted=settings.report, part=part))
    own_records: Counter[str] = Counter()
    for job in jobs:
        own_records[job.tag] += job.stop - job.first
    with ExitStack() as bars:
        progress: dict[str, Progress] = {}
        before = time.monotonic()
        for report in pool.run(make_shard, jobs):
            tag = report.tag
            if tag not in progress:
                progress[tag] = bars.enter_context(closing(Progress(tag, own_records[tag], before)))
            before = time.monotonic()
            count = source_counts[tag]
            count.add(report)
            _log.debug(
                f"{report.name}: {counted(report.samples, 'sample')}, {counted(len(report.rejects), 'reject')}, "
                f"{size(report.bytes)}"
            )
            progress[tag].add(report.samples + len(report.rejects))
            allowed = settings.allowed_rejects(used_records[tag])
            if stop_early and count.counted_rejects > allowed:
                _log_rejects(tag, count)
                raise DataError(
                    f"{tag}: {count.counted_rejects} records rejected so far ({counts(count.rejected)}), but "
                    f"--max-rejects allows {allowed} of {used_records[tag]}; fix the data or raise "
                    "--max-rejects, then rerun the same command to resume"
                )
    for tag, count in source_counts.items():
        _log_rejects(tag, count)
        if count.by_last_part:
            _log.warning(
                f"{tag}: {counted(count.by_last_part, 'image was', 'images were')} found by file name alone; if "
                "several folders use the same file names, an image that was found so may be the wrong one"
            )
    _warn_of_unused_lists(settings, source_counts)
    return source_counts


def _warn_of_unused_lists(settings: BuildSettings, source_counts: Mapping[str, SourceCount]) -> None:
    """Warn about lists of images that exclude nothing, as a typing error or another list would."""
    tags_of: dict[Path, list[str]] = {}
    for source in settings.sources:
        for path in source.exclude:
            tags_of.setdefault(path, []).append(source.tag)
    for path, tags in tags_of.items():
        of_list = [source_counts[tag] for tag in tags]
        # Rounds of a sample are counted without the name of the list.
        if not any(path.name in count.used_lists or count.dropped_boxes.get("excluded") for count in of_list):
            _log.warning(
                f"{path}: excludes no image of {', '.join(tags)}; if it should, compare its lines with the names "
                "of the images"
            )


def check_counts(
    scanned: Sequence[ScannedSource], source_counts: Mapping[str, SourceCount], settings: BuildSettings
) -> None:
    """Check whether the sources may be frozen. `build` and `check` apply the same rules.

    Raises:
        DataError: sources have too many rejects or no samples; one line for each.
    """
    faults = []
    for source in scanned:
        tag = source.source.tag
        count, allowed = source_counts[tag], settings.allowed_rejects(source.used_records)
        if count.counted_rejects > allowed:
            faults.append(f"{tag}: {count.counted_rejects} records rejected, but --max-rejects allows {allowed}")
        elif not source.records and not settings.allow_empty:
            faults.append(
                f"{tag}: part={source.source.part} has none of its {counted(source.record_numbers, 'record')}; give "
                "another --val-share, remove the source from the manifest, or pass --allow-empty to build without its "
                "samples"
            )
        elif not count.samples and not settings.allow_empty:
            faults.append(
                f"{tag}: no record became a sample ({counts(count.rejected)} of {source.used_records:,}); fix the "
                "data, remove the source from the manifest, or pass --allow-empty to build without its samples"
            )
    if not faults and not any(count.samples for count in source_counts.values()):
        faults.append("no source has any samples, so there is nothing to freeze; fix the data")
    if faults:
        raise DataError("\n".join(faults))


def _log_rejects(tag: str, count: SourceCount) -> None:
    """Log a few examples of rejected records for each reason."""
    for reason, rejects in sorted(count.examples.items()):
        level = logging.INFO if reason in UNCOUNTED_REASONS else logging.WARNING
        for reject in sorted(rejects, key=lambda reject: reject.record):
            _log.log(level, f"{tag}: record {reject.record} rejected, {reason}: {reject.detail}")
        if count.rejected[reason] > len(rejects):
            _log.log(level, f"{tag}: ... and {count.rejected[reason] - len(rejects)} more with {reason}")
