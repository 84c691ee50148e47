"""Totals of a frozen set by source, as a table and as data."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

from griffon_shards.lock import Lock, ShardEntry
from griffon_shards.support.tables import counts, size, table


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTotals:
    """Counts and sizes of one source in a set."""

    tag: str
    task: str
    format: str
    annotation: str
    weight: str
    records: int
    samples: int
    rejected: dict[str, int]
    dropped_boxes: dict[str, int]
    shards: int
    bytes: int
    options: dict[str, str]
    excluded: dict[str, str]


TOTALS_HEAD = ("source", "records", "samples", "rejected", "dropped boxes", "shards", "bytes")


def totals(lock: Lock) -> list[SourceTotals]:
    """The totals of each source, in the set's order."""
    by_tag: dict[str, list[ShardEntry]] = defaultdict(list)
    for shard in lock.shards:
        by_tag[shard.name.partition("/")[0]].append(shard)
    sources = []
    for source in lock.sources:
        dropped: Counter[str] = Counter()
        for shard in by_tag[source.tag]:
            dropped.update(shard.dropped_boxes)
        sources.append(
            SourceTotals(
                tag=source.tag,
                task=source.task,
                format=source.format,
                annotation=source.annotation,
                weight=source.weight,
                records=source.records,
                samples=source.samples,
                rejected=dict(source.rejected),
                dropped_boxes=dict(sorted(dropped.items())),
                shards=len(by_tag[source.tag]),
                bytes=sum(shard.bytes for shard in by_tag[source.tag]),
                options=dict(source.options),
                excluded=dict(source.excluded),
            )
        )
    return sources


def totals_table(lock: Lock) -> str:
    """The totals as a table. Its last line is for the complete set."""
    sources = totals(lock)
    rows = [totals_row(t.tag, t.records, t.samples, t.rejected, t.dropped_boxes, t.shards, t.bytes) for t in sources]
    rejected, dropped = Counter[str](), Counter[str]()
    for source in sources:
        rejected.update(source.rejected)
        dropped.update(source.dropped_boxes)
    records, samples = sum(t.records for t in sources), sum(t.samples for t in sources)
    shards, total_bytes = sum(t.shards for t in sources), sum(t.bytes for t in sources)
    return table(TOTALS_HEAD, [*rows, totals_row("all", records, samples, rejected, dropped, shards, total_bytes)])


def totals_row(
    tag: str,
    records: int,
    samples: int,
    rejected: dict[str, int] | Counter[str],
    dropped_boxes: dict[str, int] | Counter[str],
    shards: int,
    total_bytes: int,
) -> tuple[object, ...]:
    """A row under `TOTALS_HEAD`."""
    return (tag, records, samples, counts(rejected), counts(dropped_boxes), shards, size(total_bytes))


def selections(lock: Lock) -> list[str]:
    """A line for each choice of records, with the sources that share it: part, share of val, exclusion lists."""
    sources: dict[str, list[str]] = defaultdict(list)
    for source in lock.sources:
        if "part" in source.options:
            share, seed = source.options["val_share"], source.options["val_seed"]
            sources[f"part {source.options['part']} (val has {share} of the images, seed {seed})"].append(source.tag)
        for name, sha256 in source.excluded.items():
            sources[f"without {name} (SHA-256 {sha256})"].append(source.tag)
    everywhere = len(lock.sources)
    return [
        f"{choice}: {'all sources' if len(tags) == everywhere else ', '.join(tags)}" for choice, tags in sources.items()
    ]


def info(lock: Lock) -> dict[str, object]:
    """Facts and totals of a set as plain data, for `griffon-shards info --json`."""
    return {
        "digest": lock.digest,
        "format_version": lock.format_version,
        "tool_version": lock.tool_version,
        "render": dict(lock.render),
        "samples": sum(source.samples for source in lock.sources),
        "bytes": sum(shard.bytes for shard in lock.shards),
        "sources": [asdict(source) for source in totals(lock)],
    }
