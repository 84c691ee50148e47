"""The differences between two sets as text for people, and as plain data for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from griffon_shards.diff.locks import Change
from griffon_shards.diff.samples import PARTS, PartChange
from griffon_shards.diff.sets import ChangedSample, SetDiff, SourceDiff
from griffon_shards.storage import Location
from griffon_shards.support.tables import printable, size, table

_EXCERPT_CHARS = 100
_KEPT_CHARS = 20  # of what two texts have in common, in front of their first difference
_HASH_CHARS = 12


def plain_data(diff: SetDiff, a: Location, b: Location) -> dict[str, object]:
    """The differences as plain data: everything that the text has, and values in full."""
    return {
        "alike": diff.alike,
        "a": {"path": str(a), "digest": diff.digest_a},
        "b": {"path": str(b), "digest": diff.digest_b},
        "outside_digest": [asdict(change) for change in diff.outside_digest],
        "settings": [asdict(change) for change in diff.settings],
        "order_of_sources": None if diff.order is None else {"a": diff.order.a, "b": diff.order.b},
        "sources": [asdict(source) for source in diff.sources],
    }


def as_text(diff: SetDiff, a: Location, b: Location) -> Iterator[str]:
    """The differences as paragraphs."""
    if diff.alike:
        yield f"alike: both sets have the digest {diff.digest_a}"
    else:
        yield f"A  {a}  digest {diff.digest_a}\nB  {b}  digest {diff.digest_b}"
        if diff.settings:
            yield _changes_table("setting", diff.settings)
        inputs = [(source.tag, *_cells(change)) for source in diff.sources for change in source.facts]
        if inputs:
            yield table(("source", "input or count", "A", "B"), inputs)
        if diff.order is not None:
            yield "\n".join(("order of sources", *_pair(*_cells(diff.order)[1:])))
        yield _samples_table(diff.sources)
        for source in diff.sources:
            yield from _examples(source)
    if diff.outside_digest:
        yield _changes_table("not in the digest", diff.outside_digest)


def _changes_table(head: str, changes: Sequence[Change]) -> str:
    return table((head, "A", "B"), [_cells(change) for change in changes])


def _cells(change: Change) -> tuple[str, str, str]:
    return change.name, _value(change.name, change.a), _value(change.name, change.b)


def _value(name: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str) and ("sha256" in name or name == "templates"):
        return value[:_HASH_CHARS]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) and name != "seed" else printable(str(value))


def _samples_table(sources: Sequence[SourceDiff]) -> str:
    """Counts by source; the parts that changed nowhere are left out."""
    parts = [part for part in PARTS if any(source.changed_parts.get(part) for source in sources)]
    head = ("source", "in A", "in B", "only A", "only B", "same", "changed", *parts, "order")
    rows: list[tuple[object, ...]] = [
        (
            *(source.tag, source.samples_a, source.samples_b, source.only_a, source.only_b),
            *(source.same, source.changed, *(source.changed_parts.get(part, 0) for part in parts)),
            _order(source),
        )
        for source in sources
    ]
    sums = [sum(int(str(row[column])) for row in rows) for column in range(1, len(head) - 1)]
    return table(head, [*rows, ("all", *sums, "")])


def _order(source: SourceDiff) -> str:
    if not source.same + source.changed:
        return "-"
    return "same" if source.in_order else "differs"


def _examples(source: SourceDiff) -> Iterator[str]:
    for name, keys, count in (("A", source.first_only_a, source.only_a), ("B", source.first_only_b, source.only_b)):
        if keys:
            more = f" and {count - len(keys):,} more" if count > len(keys) else ""
            yield f"only in {name}: {', '.join(keys)}{more}"
    for sample in source.examples:
        yield _example(sample)


def _example(sample: ChangedSample) -> str:
    lines = [f"{sample.key}: {', '.join(sample.part_names)}"]
    for change in sample.parts:
        part = change.part if not change.variant else f"{change.part}, variant {change.variant}"
        a, b = _excerpts(*(_shown(change, value) for value in (change.a, change.b)))
        if change.part != "encoding":
            lines += [f"  {part}", *_pair(a, b)]
    return "\n".join(lines)


def _pair(a: str, b: str) -> tuple[str, str]:
    return f"    A  {a}", f"    B  {b}"


def _shown(change: PartChange, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        if change.part == "conversation":
            return printable(f"[{value['from']}] {value['value']}")
        if change.part == "image":
            digest = value["sha256"][:_HASH_CHARS]
            return f"{value['format']} {value['width']}x{value['height']}, {size(value['bytes'])}, sha256 {digest}"
        return printable(f"record {value['record']} of {value['annotation']}")
    if change.part == "region" and isinstance(value, list):
        return _box(value)
    if change.part == "boxes" and isinstance(value, list):
        return f"{len(value)}: " + " ".join(map(_box, value))
    return str(value)


def _box(box: Sequence[float]) -> str:
    return f"[{', '.join(map(str, box))}]"


def _excerpts(a: str, b: str) -> tuple[str, str]:
    """Both texts from the same character on, so that their first difference is visible and in the same column."""
    alike = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    visible = max(len(a), len(b)) <= _EXCERPT_CHARS or alike <= _EXCERPT_CHARS // 2
    start = 0 if visible else alike - _KEPT_CHARS
    return _excerpt(a, start), _excerpt(b, start)


def _excerpt(text: str, start: int) -> str:
    end = start + _EXCERPT_CHARS
    return f"{'...' if start else ''}{text[start:end]}{'...' if len(text) > end else ''}"
