"""The settings of a build."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.resolve import SourceInput


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """A build as requested on the command line.

    Attributes:
        sources: sources of the manifest with their files found.
        render: settings that change the bytes of the set.
        max_rejects: fraction of a source's records that may be rejected.
        allow_empty: allow sources without samples, as long as another source has one.
        workers: number of jobs that run at once, or None for one per CPU core.
        engine: what runs the jobs: `local`, `ray`, or `MODULE:FACTORY`; the result does not depend on it.
        ray_address: `auto` or HOST:PORT of a running Ray cluster, or None.
        start_method: multiprocessing start method of local workers.
        report: write `report.html` into the set's folder.
        exclude_keys: lists of keys, to report those that name no record.
        work: folder for the work files of a set at a URL; by default below the user's cache.
        inputs: folder of the copies of annotations in object stores, or None if the build uses no store.
    """

    sources: Sequence[SourceInput]
    render: RenderSettings
    max_rejects: Fraction
    workers: int | None
    engine: str = "local"
    ray_address: str | None = None
    start_method: str = "spawn"
    allow_empty: bool = False
    report: bool = True
    exclude_keys: Sequence[Path] = ()
    work: Path | None = None
    inputs: Path | None = None

    def allowed_rejects(self, used_records: int) -> int:
        """Maximum number of rejects among so many records of a source, without those that do not count."""
        return max(10, int(self.max_rejects * used_records))
