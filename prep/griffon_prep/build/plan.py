"""What a build is going to make: its shards, and the part of the lock that is known before anything is made."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import ShardJob
from griffon_prep.sources.resolve import SourceInput
from griffon_prep.sources.scan import SUGGESTED_ROUNDS, ScannedSource
from griffon_shards.support.tables import size

_WORTH_SAYING = 0.9  # of the bytes, with `rounds=`
_ESTIMATE_FROM = 64  # records of the shuffled order: enough for the mean size of a picture


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
        with_images, without = self.settings.render()["samples_per_shard"]
        return int(with_images if self.scanned.has_images else without)

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
