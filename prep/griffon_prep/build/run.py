"""`griffon-prep build` and `check`: scan the sources, make their shards, freeze the set; or do all but the writing."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from griffon_prep.build.finalize import freeze
from griffon_prep.build.folder import BuildFolder, check_no_other_set, differences
from griffon_prep.build.identity import identity, identity_of_lock
from griffon_prep.build.plan import PlannedSource
from griffon_prep.build.progress import Progress
from griffon_prep.build.report import Reject, ShardReport, read_report
from griffon_prep.build.reuse import link_unchanged
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import make_shard
from griffon_prep.build.worker_pool import LocalPool
from griffon_prep.records import UNCOUNTED_REASONS
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.scan import ScanJob, ScannedSource, scan_source
from griffon_shards.frozen_set import open_set
from griffon_shards.lock import Lock, read_lock
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import counts, size

Say = Callable[[str], None]
"""Shows a line to the user."""

_EXAMPLES = 3  # rejected records shown for each reason
_SURPLUS = 1.05  # of free space over the estimate


@dataclass(slots=True)
class SourceCount:
    """What has come of a source so far."""

    samples: int = 0
    shards: int = 0
    bytes: int = 0
    by_last_part: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    dropped_boxes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Reject]] = field(default_factory=dict)

    def add(self, report: ShardReport) -> None:
        """Count a finished shard."""
        self.samples += report.samples
        self.shards += bool(report.samples)
        self.bytes += report.bytes
        self.by_last_part += report.by_last_part
        self.rejected.update(reject.reason for reject in report.rejects)
        self.dropped_boxes.update(report.dropped_boxes)
        for reject in report.rejects:
            shown = self.examples.setdefault(reject.reason, [])
            if len(shown) < _EXAMPLES:
                shown.append(reject)

    @property
    def counted_rejects(self) -> int:
        """Rejects that count towards `--max-rejects`."""
        return sum(count for reason, count in self.rejected.items() if reason not in UNCOUNTED_REASONS)


def build(settings: BuildSettings, out: Path, *, reuse: Path | None, recheck: bool, overwrite: bool, say: Say) -> Lock:
    """Freeze a set into `out`, or go on with it, or find it up to date.

    Args:
        settings: what to build.
        out: the set's folder.
        reuse: a frozen set whose unchanged sources are linked.
        recheck: if the set is frozen already, make every shard again in memory and compare.
        overwrite: remove what `out` holds of a set first.
        say: called with lines for the user.

    Raises:
        SettingsError: something else is in `out`, or another build is.
        DataError: too many rejects, a source without a sample, too little disk, damaged annotations, changed inputs.
        OSError: storage fails.
    """
    if reuse is not None and out.resolve() == reuse.resolve():
        raise SettingsError(f"--reuse {reuse}: is the folder to build into; give --out a new one")
    with BuildFolder(out) as folder:
        sha256s = folder.stamps.sha256s(settings.sources)
        folder.stamps.save()
        plan = identity(settings, sha256s)
        if overwrite and (folder.frozen or folder.unfinished_other_than(plan)):
            folder.clear()
        if folder.frozen:
            folder.clear_work()  # a kill right after the last step leaves it
            lock = _check_same(out, settings, sha256s)
            if recheck:
                _recheck(lock, settings, folder, sha256s, say)
            say(f"{out}: up to date")
            return lock
        check_no_other_set(folder, plan)
        old = open_set(reuse) if reuse is not None else None
        with LocalPool(settings.workers, settings.start_method) as pool:
            planned = _scan(settings, sha256s, folder.work, pool, say)
            if old is None:
                _check_space(planned, out, pool, say)
            folder.begin(plan)
            if old is not None:
                reused = link_unchanged(old, out, settings, planned)
                say(f"reused from {old.root}: {', '.join(reused) or 'nothing, every source or setting has changed'}")
                _check_space(planned, out, pool, say)
            judge(planned, run_jobs(planned, out, pool, stop_early=True, say=say), settings)
        if sha256s != folder.stamps.sha256s(settings.sources):
            raise DataError(
                f"{out}: an annotation was changed while it was read; --overwrite begins anew with the new one"
            )
        lock = freeze(out, settings, planned)
        folder.clear_work()
        return lock


def check(settings: BuildSettings, say: Say) -> tuple[list[PlannedSource], dict[str, SourceCount]]:
    """Read, render and reject as `build` does, and write nothing. Returns the sources and what would come of them.

    Raises:
        DataError: an annotation is damaged.
        OSError: storage fails.
    """
    with tempfile.TemporaryDirectory(prefix="griffon-check-") as name:
        stamps = AnnotationHashes(Path(name) / "annotations.json")
        sha256s = stamps.sha256s(settings.sources)
        with LocalPool(settings.workers, settings.start_method) as pool:
            planned = _scan(settings, sha256s, Path(name), pool, say)
            return planned, run_jobs(planned, None, pool, stop_early=False, say=say)


def run_jobs(
    planned: Sequence[PlannedSource], out: Path | None, pool: LocalPool, *, stop_early: bool, say: Say
) -> dict[str, SourceCount]:
    """Make all shards, counting and showing progress; a small source does not keep the other workers waiting.

    Raises:
        DataError: with `stop_early`, when a source has more rejects than it may have.
    """
    found = {source.source.tag: SourceCount() for source in planned}
    by_tag = {source.source.tag: source for source in planned}
    with ExitStack() as bars:
        progress: dict[str, Progress] = {}
        before = time.monotonic()
        for report in pool.run(make_shard, chain.from_iterable(source.jobs(out) for source in planned)):
            tag, source = report.tag, by_tag[report.tag]
            if tag not in progress:
                progress[tag] = bars.enter_context(closing(Progress(tag, source.places, before)))
            before = time.monotonic()
            count = found[tag]
            count.add(report)
            progress[tag].add(report.samples + len(report.rejects))
            if stop_early and count.counted_rejects > source.max_rejects:
                say_rejects(tag, count, say)
                raise DataError(
                    f"{tag}: {count.counted_rejects} records rejected so far ({counts(count.rejected)}), and "
                    f"--max-rejects allows {source.max_rejects} of {source.places}; mend the data or raise "
                    "--max-rejects, the same command goes on"
                )
    for tag, count in found.items():
        say_rejects(tag, count, say)
        if count.by_last_part:
            say(
                f"{tag}: {count.by_last_part:,} pictures were found by the last part of their paths alone; where file "
                "names repeat from folder to folder, these may be others"
            )
    return found


def judge(planned: Sequence[PlannedSource], found: Mapping[str, SourceCount], settings: BuildSettings) -> None:
    """See whether what has come of the sources may be frozen; `build` and `check` judge alike.

    Raises:
        DataError: sources have too many rejects or no sample left; a line for each.
    """
    faults = []
    for source in planned:
        tag = source.source.tag
        count = found[tag]
        if count.counted_rejects > source.max_rejects:
            faults.append(f"{tag}: {count.counted_rejects} records rejected, --max-rejects allows {source.max_rejects}")
        elif not count.samples and not settings.allow_empty:
            faults.append(
                f"{tag}: no record became a sample ({counts(count.rejected)} of {source.places:,}); mend the data, "
                "leave the source out, or build without its samples with --allow-empty"
            )
    if not faults and not any(count.samples for count in found.values()):
        faults.append("no record of any source became a sample, so there is nothing to freeze")
    if faults:
        raise DataError("\n".join(faults))


def say_rejects(tag: str, count: SourceCount, say: Say) -> None:
    """Show a few rejected records for each reason."""
    for reason, rejects in sorted(count.examples.items()):
        for reject in sorted(rejects, key=lambda reject: reject.record):
            say(f"{tag}: record {reject.record} rejected, {reason}: {reject.detail}")
        if count.rejected[reason] > len(rejects):
            say(f"{tag}: ... and {count.rejected[reason] - len(rejects)} more, {reason}")


def _scan(
    settings: BuildSettings, sha256s: Mapping[Path, str], work: Path, pool: LocalPool, say: Say
) -> list[PlannedSource]:
    jobs = [
        ScanJob(source=source, sha256s=tuple(sha256s[path] for path in source.files), work=work / source.tag)
        for source in settings.sources
    ]
    scanned = dict(pool.run(_scan_tagged, jobs))
    planned = [
        PlannedSource(source=job.source, scanned=scanned[job.source.tag], settings=settings, work=job.work)
        for job in jobs
    ]
    for source in planned:
        for note in source.scanned.notes:
            say(f"{source.source.tag}: {note}")
    return planned


def _scan_tagged(job: ScanJob) -> tuple[str, ScannedSource]:
    return job.source.tag, scan_source(job)


def _check_space(planned: Sequence[PlannedSource], out: Path, pool: LocalPool, say: Say) -> None:
    """Say what is going to be made and what room there is for it.

    Raises:
        DataError: there is too little.
    """
    looked = {report.tag: report for report in pool.run(make_shard, [source.estimate_job() for source in planned])}
    free_bytes = shutil.disk_usage(out).free
    needed_bytes = 0.0
    for source in planned:
        report = looked[source.source.tag]
        tried = report.samples + len(report.rejects)
        samples = source.places * report.samples // tried
        estimate_bytes = report.bytes * source.places / tried
        done = [found[0].bytes for number in range(source.shard_count) if (found := read_report(source.work, number))]
        left_bytes = max(0.0, estimate_bytes - sum(done))
        needed_bytes += left_bytes
        finished = f", {len(done)} of {source.shard_count} shards finished" if done else ""
        say(
            f"{source.source.tag}: {source.places:,} records, about {samples:,} samples and {size(estimate_bytes)}"
            f"{finished}; {size(free_bytes)} free"
        )
        if saving := source.saving(estimate_bytes):
            say(f"{source.source.tag}: {saving}")
    if needed_bytes * _SURPLUS > free_bytes:
        raise DataError(
            f"{out}: about {size(needed_bytes)} are to be written and {size(free_bytes)} are free; "
            "make room, give an --out elsewhere, or take less of a source (a manifest takes limit=)"
        )


def _check_same(out: Path, settings: BuildSettings, sha256s: Mapping[Path, str]) -> Lock:
    """The lock of the frozen set in `out`, if this is the build that made it.

    Raises:
        DataError: it is not; the message says what differs.
    """
    lock = read_lock(out)
    before, now = identity_of_lock(lock, settings), identity(settings, sha256s)
    changed = differences(before, now)
    weights = {source.tag: source.weight for source in settings.sources}
    changed = changed or "; ".join(
        f"source {source.tag}: weight was {source.weight} and is {weights[source.tag]}"
        for source in lock.sources
        if source.weight != weights.get(source.tag)
    )
    if changed:
        raise DataError(
            f"{out}: holds a frozen set that this build would change ({changed}); a frozen set is never altered: "
            f"build into another folder with --out NEW --reuse {out} (what has not changed is linked), or --overwrite"
        )
    return lock


def _recheck(lock: Lock, settings: BuildSettings, folder: BuildFolder, sha256s: Mapping[Path, str], say: Say) -> None:
    """Make every shard of a frozen set again, in memory, and compare.

    Raises:
        DataError: pictures have changed since; the message names the shards.
    """
    frozen = {shard.name: shard.sha256 for shard in lock.shards}
    made: dict[str, str] = {}
    try:
        with LocalPool(settings.workers, settings.start_method) as pool:
            planned = _scan(settings, sha256s, folder.work, pool, say)
            for source in planned:
                for report in pool.run(make_shard, source.jobs(None)):
                    if report.samples:
                        made[report.name] = report.sha256
    finally:
        folder.clear_work()
    changed = sorted(name for name in {*frozen, *made} if frozen.get(name) != made.get(name))
    if changed:
        raise DataError(
            f"{folder.out}: pictures have changed since it was frozen; these shards would come out otherwise: "
            f"{', '.join(changed[:10])}{' ...' if len(changed) > 10 else ''}; the set itself is as it was, "
            "build the new state into another folder with --out"
        )
    say(f"rechecked {len(made)} shards: every picture gives the frozen bytes")
