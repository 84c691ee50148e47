"""What a build is going to make: its shards, and the part of the lock that is known before anything is made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from griffon_prep.build.shard import ShardJob, ShardSettings
from griffon_prep.render import RENDER_VERSION
from griffon_prep.sources.scan import SUGGESTED_ROUNDS, ScannedSource, SourceInput
from griffon_shards.lock import Lock
from griffon_shards.support.tables import size

DEFAULT_SAMPLES_PER_SHARD = (1000, 10000)
"""With pictures, and without."""

_WORTH_SAYING = 0.9  # of the bytes, with `rounds=`
_ESTIMATE_FROM = 64  # records of the shuffled order: enough for the mean size of a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """A build, as the command line asks for it.

    Attributes:
        sources: what the manifest names, found on disk.
        shard: the settings that change a sample's bytes.
        samples_per_shard: None for the defaults.
        max_rejects: the fraction of a source's records that may be rejected.
        allow_empty: a source may have no sample left, as long as another has one.
        workers: number of processes.
        start_method: how they are started; the result is the same.
    """

    sources: Sequence[SourceInput]
    shard: ShardSettings
    samples_per_shard: int | None
    max_rejects: Fraction
    workers: int
    start_method: str = "spawn"
    allow_empty: bool = False

    def render(self) -> dict[str, Any]:
        """Every setting that changes bytes, as the lock holds them."""
        return {
            "render_version": RENDER_VERSION,
            "seed": self.shard.seed,
            "boxes": self.shard.boxes,
            "det_categories": self.shard.det_categories,
            "variants": self.shard.variants,
            "samples_per_shard": list(DEFAULT_SAMPLES_PER_SHARD)
            if self.samples_per_shard is None
            else [self.samples_per_shard] * 2,
            "check": self.shard.check,
            "resize": self.shard.resize_px or 0,
            "templates": self.shard.templates_sha256,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """A source, scanned, and the shards to make of it."""

    source: SourceInput
    scanned: ScannedSource
    settings: BuildSettings
    work: Path

    @property
    def places(self) -> int:
        """How many records are taken: all, or the first `limit=` in shuffled order."""
        limit = self.source.limit
        return self.scanned.records if limit is None else min(limit, self.scanned.records)

    @property
    def shard_count(self) -> int:
        """How many shards the places fill."""
        return -(-self.places // self._per_shard)

    @property
    def _per_shard(self) -> int:
        with_pictures, without = self.settings.render()["samples_per_shard"]
        return int(with_pictures if self.scanned.has_pictures else without)

    @property
    def max_rejects(self) -> int:
        """How many counted rejects the source may have."""
        return max(10, int(self.settings.max_rejects * self.places))

    def saving(self, estimate_bytes: float) -> str:
        """What `rounds=` saves, or would save; empty where that is little or there is no such choice."""
        scanned, rounds = self.scanned, self.source.rounds
        if not scanned.with_rounds:
            return ""
        if rounds > 1:
            alone_bytes = estimate_bytes * scanned.questions / scanned.records
            return f"rounds={rounds} puts {scanned.questions:,} questions into them; alone, about {size(alone_bytes)}"
        together_bytes = estimate_bytes * scanned.with_rounds / scanned.questions
        if together_bytes > _WORTH_SAYING * estimate_bytes:
            return ""
        samples = self.places * scanned.with_rounds // scanned.questions
        return f"with rounds={SUGGESTED_ROUNDS} it would be about {samples:,} samples and {size(together_bytes)}"

    def jobs(self, out: Path | None) -> Iterator[ShardJob]:
        """The jobs that make the source's shards, in order; with None they write nothing."""
        for number in range(self.shard_count):
            first = number * self._per_shard
            stop = min(first + self._per_shard, self.places)
            yield self._job(out, number, first, stop)

    def estimate_job(self) -> ShardJob:
        """A job that makes some samples and throws them away, to learn their size."""
        job = self._job(None, 0, 0, min(_ESTIMATE_FROM, self.places))
        return replace(job, settings=replace(job.settings, check="none"))

    def _job(self, out: Path | None, number: int, first: int, stop: int) -> ShardJob:
        return ShardJob(
            source=self.source,
            settings=self.settings.shard,
            work=self.work,
            out=out,
            shard_no=number,
            first=first,
            stop=stop,
        )


def identity(settings: BuildSettings, sha256s: Mapping[Path, str]) -> dict[str, Any]:
    """What decides whether two builds make the same samples, known without reading a record.

    Args:
        settings: of the build.
        sha256s: of the files of all its sources.
    """
    return {
        "render": settings.render(),
        "sources": [
            source_identity(source, sha256s[source.annotation], _companion_hashes(source, sha256s))
            for source in settings.sources
        ],
    }


def source_identity(source: SourceInput, annotation_sha256: str, companions: Mapping[str, str]) -> dict[str, Any]:
    """What decides whether two sources have the same records."""
    return {
        "tag": source.tag,
        "task": source.task,
        "annotation": source.annotation_name,
        "annotation_sha256": annotation_sha256,
        "companions": dict(companions),
        "options": dict(source.options),
    }


def _companion_hashes(source: SourceInput, sha256s: Mapping[Path, str]) -> dict[str, str]:
    return {companion.stated: sha256s[companion.path] for companion in source.companions}


def identity_of_lock(lock: Lock, settings: BuildSettings) -> dict[str, Any]:
    """The identity of the build that froze a set; a format that the new manifest leaves open is left open here too."""
    named = {source.tag for source in settings.sources if "format" in source.options}
    return {
        "render": dict(lock.render),
        "sources": [
            {
                "tag": source.tag,
                "task": source.task,
                "annotation": source.annotation,
                "annotation_sha256": source.annotation_sha256,
                "companions": dict(source.companions),
                "options": {**source.options, **({"format": source.format} if source.tag in named else {})},
            }
            for source in lock.sources
        ],
    }
