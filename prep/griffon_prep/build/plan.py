"""The plan of a build: which shards are made from each scanned source."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.shard import ShardJob
from griffon_prep.sources.resolve import SourceInput
from griffon_prep.sources.scan import SUGGESTED_ROUNDS, ScannedSource
from griffon_shards.support.tables import size

_WORTH_SUGGESTING = 0.9  # suggest `rounds=` if at most this fraction of the bytes remains
_ESTIMATE_FROM = 64  # records: enough to estimate the mean size of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """A scanned source and the shards to make from it."""

    source: SourceInput
    scanned: ScannedSource
    settings: BuildSettings
    work: Path

    @property
    def used_records(self) -> int:
        """Number of records that are used: all, or the first `limit=` in shuffled order."""
        limit = self.source.limit
        return self.scanned.records if limit is None else min(limit, self.scanned.records)

    @property
    def shard_count(self) -> int:
        """Number of shards that the used records fill."""
        return -(-self.used_records // self._per_shard)

    @property
    def _per_shard(self) -> int:
        with_images, without = self.settings.shard_sizes
        return with_images if self.scanned.has_images else without

    @property
    def max_rejects(self) -> int:
        """Maximum number of rejects that count towards `--max-rejects`."""
        return max(10, int(self.settings.max_rejects * self.used_records))

    def saving(self, estimate_bytes: float) -> str:
        """A sentence on how much `rounds=` saves or would save; empty if that is little or not applicable."""
        scanned, rounds = self.scanned, self.source.rounds
        if not scanned.with_rounds:
            return ""
        if rounds > 1:
            alone_bytes = estimate_bytes * scanned.questions / scanned.records
            return (
                f"rounds={rounds} combines {scanned.questions:,} questions into these samples; "
                f"without it, about {size(alone_bytes)}"
            )
        together_bytes = estimate_bytes * scanned.with_rounds / scanned.questions
        if together_bytes > _WORTH_SUGGESTING * estimate_bytes:
            return ""
        samples = self.used_records * scanned.with_rounds // scanned.questions
        return f"with rounds={SUGGESTED_ROUNDS} there would be about {samples:,} samples and {size(together_bytes)}"

    def jobs(self, out: Path | None) -> Iterator[ShardJob]:
        """The jobs that make the source's shards, in order. Without `out` they write nothing."""
        for shard_no in range(self.shard_count):
            first = shard_no * self._per_shard
            stop = min(first + self._per_shard, self.used_records)
            yield self._job(out, shard_no, first, stop)

    def estimate_job(self) -> ShardJob:
        """A job that makes a few samples and discards them, to estimate their size."""
        job = self._job(None, 0, 0, min(_ESTIMATE_FROM, self.used_records))
        return replace(job, settings=replace(job.settings, check="none"))

    def _job(self, out: Path | None, shard_no: int, first: int, stop: int) -> ShardJob:
        return ShardJob(
            source=self.source,
            settings=self.settings.shard,
            work=self.work,
            out=out,
            records=self.scanned.records,
            shard_no=shard_no,
            first=first,
            stop=stop,
        )
