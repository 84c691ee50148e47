"""`griffon-prep build`: scan the sources, make their shards, freeze the set. `check` does the same without writing."""

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from griffon_prep.build.engines import LOCAL, open_engine
from griffon_prep.build.finalize import check_all_made, check_begun, freeze
from griffon_prep.build.folder import BuildFolder, check_no_other_set, differences, start_over
from griffon_prep.build.identity import identity, identity_of_lock
from griffon_prep.build.machines import for_other_machines, own_work
from griffon_prep.build.plan import estimate_job, saving, shard_count, shard_jobs
from griffon_prep.build.report import read_report
from griffon_prep.build.report_page import write_missing_page, write_report_page
from griffon_prep.build.reuse import take_unchanged
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import make_shard
from griffon_prep.build.shard_counts import gather_counts
from griffon_prep.build.shard_jobs import SourceCount, check_counts, run_jobs
from griffon_prep.sources.annotation_hashes import AnnotationHashes
from griffon_prep.sources.exclusion import unknown_keys
from griffon_prep.sources.scan import ScannedSource, scan_source
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.lock import Lock, read_lock
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import remove_temporaries
from griffon_shards.support.processes import available_cores
from griffon_shards.support.tables import size
from griffon_shards.support.worker_pool import Engine, LocalPool

_log = logging.getLogger(__name__)

_SPACE_MARGIN = 1.05  # required free space relative to the estimate


def build(
    settings: BuildSettings,
    out: Location,
    *,
    reuse: Location | None,
    recheck: bool,
    overwrite: bool,
    finish: bool = False,
) -> Lock:
    """Freeze a set into `out`, resume an unfinished build there, or find the set up to date.

    Args:
        settings: the settings of the build.
        out: output folder or URL.
        reuse: a frozen set to take unchanged sources from, by hard links where both are on one disk.
        recheck: if the set is frozen already, make every shard again in memory and compare.
        overwrite: delete any set in `out` first; refused for a URL.
        finish: require that all shards are made already, by the parts of the build.

    Raises:
        SettingsError: `out` holds other files, or another build is writing into it.
        DataError: too many rejects, a source without samples, too little disk space, damaged annotations, changed
            inputs; with `finish`, missing shards.
        OSError: the storage fails.
    """
    check_not_reused(out, reuse)
    if overwrite and isinstance(out, ObjectPath):
        raise SettingsError(f"--overwrite: objects are not deleted; {start_over(out)}, or give another --out")
    with BuildFolder(out, work=settings.work) as folder:
        sha256s = folder.stamps.sha256s(settings.sources)
        folder.stamps.save()
        plan = identity(settings, sha256s)
        if overwrite and (folder.frozen or folder.unfinished_other_than(plan)):
            folder.clear()
        if folder.frozen:
            return _up_to_date(folder, settings, sha256s, recheck=recheck)
        check_no_other_set(folder, plan)
        if finish:
            check_begun(folder)
        old = open_set(reuse) if reuse is not None else None
        tags = [source.tag for source in settings.sources]
        with open_engine(settings) as pool:
            scanned = scan(settings, sha256s, folder.work, pool, folder.out)
            folder.output.fetch_reports(tags)
            if finish:
                check_all_made(scanned, settings, folder, pool)
            else:
                begin(folder, plan, scanned, settings, old, pool)
            source_counts = run_jobs(scanned, settings, folder.output, pool, stop_early=not finish)
            check_counts(scanned, source_counts, settings)
            if settings.engine != LOCAL:
                folder.output.fetch_reports(tags)  # of other machines
            gather_counts(scanned, settings, folder.output, reuse, pool)
            check_inputs(folder, settings, sha256s)
            remove_temporaries(folder.output.stage)  # of workers that were lost, whose jobs an engine has run again
            lock = freeze(folder.output, settings.render, scanned)
            write_report_page(out, settings, pool)
        folder.clear_work()  # only now, as workers keep work files open
        return lock


def _up_to_date(folder: BuildFolder, settings: BuildSettings, sha256s: Mapping[Path, str], *, recheck: bool) -> Lock:
    """Check that the frozen set is the one that this build would make; returns its lock."""
    folder.clear_work()  # left over if a build was killed right after the last step
    lock = check_same(folder.out, settings, sha256s)
    if recheck:
        _recheck(lock, settings, folder, sha256s)
    if not folder.read_only:
        write_missing_page(folder.out, settings)
    _log.info(f"{folder.out}: up to date")
    return lock


def check_not_reused(out: Location, reuse: Location | None) -> None:
    """Raise SettingsError if the set to reuse is in the output folder."""
    if reuse is not None and out.resolve() == reuse.resolve():
        raise SettingsError(f"--reuse {reuse}: this is also the output folder; choose another --out")


def check_inputs(folder: BuildFolder, settings: BuildSettings, sha256s: Mapping[Path, str]) -> None:
    """Raise DataError if the annotations no longer have these hashes."""
    if sha256s != folder.stamps.sha256s(settings.sources):
        raise DataError(
            f"{folder.out}: an annotation file changed during the build; {start_over(folder.out)}, or "
            "give another --out"
        )


def begin(
    folder: BuildFolder,
    plan: dict[str, Any],
    scanned: Sequence[ScannedSource],
    settings: BuildSettings,
    old: FrozenSet | None,
    pool: Engine,
) -> None:
    """Check the free space, write the plan, and take the shards of unchanged sources from the set `old`.

    Raises:
        DataError: too little disk space, or a damaged set to reuse.
    """
    if old is None:
        _check_space(scanned, settings, folder, pool)
    folder.begin(plan)
    if old is not None:
        reused = take_unchanged(old, folder.output, settings, scanned)
        nothing = "nothing, because all sources or settings have changed"
        _log.info(f"reused from {old.root}: {', '.join(reused) or nothing}")
        _check_space(scanned, settings, folder, pool)


def check(settings: BuildSettings) -> tuple[list[ScannedSource], dict[str, SourceCount]]:
    """Read and render every record as `build` does, but write nothing. Returns the sources and their counts.

    Raises:
        DataError: an annotation is damaged.
        OSError: the storage fails.
    """
    with tempfile.TemporaryDirectory(prefix="griffon-check-") as name:
        stamps = AnnotationHashes(Path(name) / "annotations.json")
        sha256s = stamps.sha256s(settings.sources)
        with open_engine(settings) as pool:
            scanned = scan(settings, sha256s, Path(name), pool, None)
            return scanned, run_jobs(scanned, settings, None, pool, stop_early=False)


def scan(
    settings: BuildSettings, sha256s: Mapping[Path, str], work: Path, pool: Engine, out: Location | None
) -> list[ScannedSource]:
    """Scan all sources, or read the results of an earlier scan in the work folder, and log notes about them.

    With a set at a URL, this machine scans, because workers on others do not share its work folder.

    Raises:
        DataError: a source is damaged or has no records.
    """
    _log.debug("scanning the annotations")
    scan = partial(scan_source, sha256s=sha256s, work=work)
    with LocalPool(available_cores(), "spawn") if own_work(settings, out) else nullcontext(pool) as scanners:
        by_tag = {source.source.tag: source for source in scanners.run(scan, settings.sources)}
    scanned = for_other_machines([by_tag[source.tag] for source in settings.sources], settings, out)
    for source in scanned:
        for note in source.notes:
            _log.warning(f"{source.source.tag}: {note}")
    _warn_of_selection(settings, scanned)
    return scanned


def _warn_of_selection(settings: BuildSettings, scanned: Sequence[ScannedSource]) -> None:
    """Warn about keys that exclude nothing, and about sources that mix train and val."""
    for path in settings.exclude_keys:
        if sentence := unknown_keys(path, {source.source.tag: source.record_numbers for source in scanned}):
            _log.warning(sentence)
    parts = {source.source.tag: source.source.part for source in scanned}
    if len(set(parts.values())) > 1:
        chosen = ", ".join(f"{tag} {part or 'all'}" for tag, part in parts.items())
        _log.warning(f"the sources use different parts of their images: {chosen}; a set with train and val has both")


def _check_space(scanned: Sequence[ScannedSource], settings: BuildSettings, folder: BuildFolder, pool: Engine) -> None:
    """Report the estimated size of the set and the free disk space.

    Of a set at a URL, the disk of the work folder holds the shards that are being made, one for each worker.

    Raises:
        DataError: there is too little free space.
    """
    jobs = [estimate_job(source, settings.render) for source in scanned]
    estimates = {report.tag: report for report in pool.run(make_shard, jobs)}
    in_store = isinstance(folder.out, ObjectPath)
    free_bytes = shutil.disk_usage(folder.output.stage).free
    needed_bytes = largest_bytes = 0.0
    for source in scanned:
        report = estimates[source.source.tag]
        tried = max(1, report.samples + len(report.rejects))  # a part may be empty
        samples = source.used_records * report.samples // tried
        estimate_bytes = report.bytes * source.used_records / tried
        shards = shard_count(source, settings.render)
        finished_reports = [read_report(source.files.work, shard_no) for shard_no in range(shards)]
        finished_bytes = [finished[0].bytes for finished in finished_reports if finished is not None]
        needed_bytes += max(0.0, estimate_bytes - sum(finished_bytes))
        largest_bytes = max(largest_bytes, estimate_bytes / max(1, shards))
        note = f", {len(finished_bytes)} of {shards} shards finished" if finished_bytes else ""
        _log.info(
            f"{source.source.tag}: {source.used_records:,} records, about {samples:,} samples and "
            f"{size(estimate_bytes)}{note}{'' if in_store else f'; {size(free_bytes)} free'}"
        )
        if sentence := saving(source, estimate_bytes):
            _log.info(f"{source.source.tag}: {sentence}")
    if in_store:
        needed_bytes = largest_bytes * (settings.workers or available_cores())
    if needed_bytes * _SPACE_MARGIN > free_bytes:
        remedy = "give fewer --workers" if in_store else "use fewer records of a source (limit= in the manifest)"
        option = "--work" if in_store else "--out"
        raise DataError(
            f"{folder.output.stage}: the build needs about {size(needed_bytes)}, but only {size(free_bytes)} are free; "
            f"free some space, choose another {option}, or {remedy}"
        )


def check_same(out: Location, settings: BuildSettings, sha256s: Mapping[Path, str]) -> Lock:
    """Return the lock of the frozen set in `out`, provided that the current build would make the same set.

    Raises:
        DataError: the set would differ; the message lists the differences.
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
        in_store = isinstance(out, ObjectPath)
        replacing = start_over(out) if in_store else "replace the set with --overwrite"
        raise DataError(
            f"{out}: holds a frozen set that this build would change ({changed}), and frozen sets are never modified; "
            f"build into a new folder with --out NEW --reuse {out} (unchanged sources are "
            f"{'copied' if in_store else 'hard-linked'}), or {replacing}"
        )
    return lock


def _recheck(lock: Lock, settings: BuildSettings, folder: BuildFolder, sha256s: Mapping[Path, str]) -> None:
    """Make every shard of a frozen set again in memory and compare it with the frozen one.

    Raises:
        DataError: images have changed since; the message names the shards.
    """
    frozen = {shard.name: shard.sha256 for shard in lock.shards}
    made: dict[str, str] = {}
    try:
        with open_engine(settings) as pool:
            for source in scan(settings, sha256s, folder.work, pool, folder.out):
                for report in pool.run(make_shard, shard_jobs(source, settings.render, None)):
                    if report.samples:
                        made[report.name] = report.sha256
    finally:
        folder.clear_work()
    changed = sorted(name for name in {*frozen, *made} if frozen.get(name) != made.get(name))
    if changed:
        raise DataError(
            f"{folder.out}: images have changed since the set was frozen; these shards would differ: "
            f"{', '.join(changed[:10])}{' ...' if len(changed) > 10 else ''}; the set itself is unchanged; "
            "choose another --out to build with the new images"
        )
    _log.info(f"rechecked {len(made)} shards: all images are unchanged")
