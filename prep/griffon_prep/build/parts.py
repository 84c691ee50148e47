"""`griffon-prep build --part K/N`: make some of the shards of a set, while other processes make the others."""

import logging
from collections.abc import Mapping

from griffon_prep.build.engines import open_engine
from griffon_prep.build.folder import BuildFolder, check_no_other_set
from griffon_prep.build.identity import identity
from griffon_prep.build.plan import BuildPart
from griffon_prep.build.run import begin, check_inputs, check_not_reused, check_same, scan
from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard_jobs import SourceCount, run_jobs
from griffon_shards.frozen_set import open_set
from griffon_shards.storage import Location

_log = logging.getLogger(__name__)


def build_part(
    settings: BuildSettings, out: Location, part: BuildPart, *, reuse: Location | None
) -> Mapping[str, SourceCount] | None:
    """Make the shards of a part, and freeze nothing. Several processes may do so at once, even with the same part.

    The first to come scans the sources and prepares the build for all of them, while the others wait.

    Args:
        settings: the settings of the build, the same for all parts.
        out: output folder or URL, shared by all parts.
        part: the part.
        reuse: a frozen set to take unchanged sources from, by hard links where both are on one disk.

    Returns:
        The counts of the part's samples by tag, or None if the set is frozen already.

    Raises:
        SettingsError: `out` holds other files, or a build without parts is writing into it.
        DataError: a source has more rejects in this part than allowed for all of it; too little disk space, damaged
            annotations, changed inputs.
        OSError: the storage fails.
    """
    check_not_reused(out, reuse)
    with BuildFolder(out, shared=True, work=settings.work) as folder:
        sha256s = folder.stamps.sha256s(settings.sources)
        folder.stamps.save()
        plan = identity(settings, sha256s)
        if folder.frozen:
            check_same(out, settings, sha256s)
            _log.info(f"{out}: up to date")
            return None
        check_no_other_set(folder, plan)
        old = open_set(reuse) if reuse is not None else None
        with open_engine(settings) as pool:
            scanned = scan(settings, sha256s, folder.work, pool, out)
            folder.output.fetch_reports([source.tag for source in settings.sources])
            if folder.parts() is None:
                begin(folder, plan, scanned, settings, old, pool)
                folder.begin_parts(part.count)
            folder.prepared()
            source_counts = run_jobs(scanned, settings, folder.output, pool, stop_early=True, part=part)
        check_inputs(folder, settings, sha256s)
        return source_counts
