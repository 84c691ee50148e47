"""Compare two sets: first their digests, then their locks and indexes, and last the samples that changed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from griffon_shards.diff.locks import (
    Change,
    changed_order,
    changed_outside_digest,
    changed_settings,
)
from griffon_shards.diff.rows import MatchedRows
from griffon_shards.diff.samples import PartChange, changed_parts
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.lock import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSample:
    """A sample that both sets have, and the parts of it that differ."""

    key: str
    parts: Sequence[PartChange]

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts that differ, each once."""
        return tuple(dict.fromkeys(change.part for change in self.parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDiff:
    """The differences within one source.

    Attributes:
        tag: the source.
        facts: inputs, options and counts that differ.
        samples_a: number of samples in A; 0 if A does not have the source.
        samples_b: number of samples in B.
        only_a: number of keys that only A has.
        only_b: number of keys that only B has.
        same: number of samples with the same bytes in both sets.
        changed: number of samples with the same key and other bytes.
        changed_parts: number of samples in which a part changed, by part.
        in_order: whether the keys that both sets have come in the same order.
        first_only_a: the first keys that only A has.
        first_only_b: the first keys that only B has.
        examples: the first samples of every set of changed parts.
    """

    tag: str
    facts: Sequence[Change]
    samples_a: int
    samples_b: int
    only_a: int
    only_b: int
    same: int
    changed: int
    changed_parts: dict[str, int]
    in_order: bool
    first_only_a: Sequence[str]
    first_only_b: Sequence[str]
    examples: Sequence[ChangedSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDiff:
    """The differences between two sets. Without `settings`, `order` and `sources` where the digests are equal."""

    digest_a: str
    digest_b: str
    outside_digest: Sequence[Change]
    settings: Sequence[Change] = ()
    order: Change | None = None
    sources: Sequence[SourceDiff] = ()

    @property
    def alike(self) -> bool:
        """Whether the sets hold the same samples in the same order, frozen from the same inputs."""
        return self.digest_a == self.digest_b


def compare_locks(a: Lock, b: Lock) -> SetDiff:
    """Compare all that locks have about sets, except their sources."""
    return SetDiff(
        digest_a=a.digest,
        digest_b=b.digest,
        outside_digest=changed_outside_digest(a, b),
        settings=changed_settings(a, b),
        order=changed_order(a, b),
    )


def read_changed(a: FrozenSet, b: FrozenSet, rows: MatchedRows) -> Iterator[ChangedSample]:
    """Read the changed samples of a source in A's order, and compare them.

    Raises:
        DataError: a shard is missing, or a sample is damaged; the message names shard and key.
    """
    for row_a, row_b in zip(rows.changed_a, rows.changed_b, strict=True):
        sample_a, sample_b = a[int(row_a)], b[int(row_b)]
        yield ChangedSample(key=sample_a.key, parts=changed_parts(sample_a, sample_b))


def compare_source(
    a: FrozenSet,
    b: FrozenSet,
    rows: MatchedRows,
    *,
    facts: Sequence[Change],
    changed: Iterator[ChangedSample],
    limit: int,
) -> SourceDiff:
    """Consume the changed samples of a source: count them by part, and keep `limit` of every set of changed parts.

    A change of one box is thus shown, even if it is the last of a million samples whose wording changed.
    """
    parts: Counter[str] = Counter()
    kept: Counter[tuple[str, ...]] = Counter()
    examples: list[ChangedSample] = []
    for sample in changed:
        names = sample.part_names
        parts.update(names)
        if kept[names] < limit:
            kept[names] += 1
            examples.append(sample)
    both = rows.same + len(rows.changed_a)
    return SourceDiff(
        tag=rows.tag,
        facts=facts,
        samples_a=both + len(rows.only_a),
        samples_b=both + len(rows.only_b),
        only_a=len(rows.only_a),
        only_b=len(rows.only_b),
        same=rows.same,
        changed=len(rows.changed_a),
        changed_parts=dict(parts),
        in_order=rows.in_order,
        first_only_a=[a.key(int(row)) for row in rows.only_a[:limit]],
        first_only_b=[b.key(int(row)) for row in rows.only_b[:limit]],
        examples=examples,
    )
