"""The plan of a build: which shards are made from each scanned source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from griffon_prep.build.output import Output
from griffon_prep.build.shard import ShardJob
from griffon_prep.render.settings import RenderSettings
from griffon_prep.sources.scan import SUGGESTED_ROUNDS, ScannedSource
from griffon_shards.support.tables import counted, size

_WORTH_SUGGESTING = 0.9  # suggest `rounds=` if at most this fraction of the bytes remains
_ESTIMATE_FROM = 64  # records: enough to estimate the mean size of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPart:
    """One of the parts that several processes or machines divide a build into: number 1 to `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def shard_count(source: ScannedSource, settings: RenderSettings) -> int:
    """Number of shards that the source's used records fill."""
    return -(-source.used_records // _shard_size(source, settings))


def shard_jobs(
    source: ScannedSource, settings: RenderSettings, out: Output | None, *, counted: bool = False
) -> Iterator[ShardJob]:
    """The jobs that make the source's shards, in order. Without `out` they write nothing."""
    shard_size = _shard_size(source, settings)
    for shard_no, first in enumerate(range(0, source.used_records, shard_size)):
        stop = min(first + shard_size, source.used_records)
        yield ShardJob(
            source=source, settings=settings, out=out, shard_no=shard_no, first=first, stop=stop, counted=counted
        )


def build_jobs(
    scanned: Sequence[ScannedSource],
    settings: RenderSettings,
    out: Output | None,
    *,
    counted: bool = False,
    part: BuildPart | None = None,
) -> Iterator[ShardJob]:
    """The jobs of all sources in order, or those of one part: every `count`th, so that each part has some of each."""
    jobs = chain.from_iterable(shard_jobs(source, settings, out, counted=counted) for source in scanned)
    return jobs if part is None else islice(jobs, part.number - 1, None, part.count)


def estimate_job(source: ScannedSource, settings: RenderSettings) -> ShardJob:
    """A job that makes a few samples and discards them, to estimate their size."""
    stop = min(_ESTIMATE_FROM, source.used_records)
    return ShardJob(source=source, settings=replace(settings, check="none"), out=None, shard_no=0, first=0, stop=stop)


def saving(source: ScannedSource, estimate_bytes: float) -> str:
    """A sentence on how much `rounds=` saves or would save; empty if that is little or not applicable."""
    rounds = source.source.rounds
    if not source.with_rounds:
        return ""
    if rounds > 1:
        alone_bytes = estimate_bytes * source.questions / source.records
        return (
            f"rounds={rounds} combines {counted(source.questions, 'question')} into these samples, each about "
            f"different boxes; without it, about {size(alone_bytes)}"
        )
    together_bytes = estimate_bytes * source.with_rounds / source.questions
    if together_bytes > _WORTH_SUGGESTING * estimate_bytes:
        return ""
    samples = source.used_records * source.with_rounds // source.questions
    return (
        f"with rounds={SUGGESTED_ROUNDS} there would be about {counted(samples, 'sample')}, each about different "
        f"boxes, and {size(together_bytes)}"
    )


def _shard_size(source: ScannedSource, settings: RenderSettings) -> int:
    with_images, without = settings.shard_sizes
    return with_images if source.has_images else without
