"""Compare the locks of two sets: settings, sources with their inputs, and facts outside the digest."""

from collections.abc import Mapping
from dataclasses import dataclass

from griffon_shards.lock import Lock, SourceEntry
from griffon_shards.summary import totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A fact that differs: its value in A and in B, None where a set does not have it."""

    name: str
    a: object
    b: object


def changed_settings(a: Lock, b: Lock) -> list[Change]:
    """The render settings that differ."""
    return _changes(a.render, b.render)


def changed_sources(a: Lock, b: Lock) -> dict[str, list[Change]]:
    """The inputs, options and counts that differ, by the tags of A and then those that only B has.

    A source that only one set has is one change named `source`; its value is the path of the annotation.
    """
    facts_a, facts_b = _source_facts(a), _source_facts(b)
    changes = {}
    for tag in dict.fromkeys((*facts_a, *facts_b)):
        if tag in facts_a and tag in facts_b:
            changes[tag] = _changes(facts_a[tag], facts_b[tag])
        else:
            paths = [facts.get(tag, {}).get("annotation") for facts in (facts_a, facts_b)]
            changes[tag] = [Change(name="source", a=paths[0], b=paths[1])]
    return changes


def changed_order(a: Lock, b: Lock) -> Change | None:
    """The order of the sources that both sets have, if it differs."""
    tags_a, tags_b = [source.tag for source in a.sources], [source.tag for source in b.sources]
    common_a, common_b = [tag for tag in tags_a if tag in tags_b], [tag for tag in tags_b if tag in tags_a]
    return None if common_a == common_b else Change(name="order of sources", a=common_a, b=common_b)


def changed_outside_digest(a: Lock, b: Lock) -> list[Change]:
    """Versions and weights that differ. Sets that differ in these alone have the same digest."""
    weights_a, weights_b = ({f"weight of {source.tag}": source.weight for source in lock.sources} for lock in (a, b))
    common = [name for name in weights_a if name in weights_b]
    return [
        *_changes({"tool_version": a.tool_version}, {"tool_version": b.tool_version}),
        *_changes(a.library_versions, b.library_versions),
        *_changes({name: weights_a[name] for name in common}, {name: weights_b[name] for name in common}),
    ]


def _changes(a: Mapping[str, object], b: Mapping[str, object]) -> list[Change]:
    names = dict.fromkeys((*a, *b))
    return [Change(name=name, a=a.get(name), b=b.get(name)) for name in names if a.get(name) != b.get(name)]


def _source_facts(lock: Lock) -> dict[str, dict[str, object]]:
    """The facts of each source under flat names: `rejected picture_not_found`, not a mapping within a mapping."""
    dropped = {source.tag: source.dropped_boxes for source in totals(lock)}
    return {source.tag: _facts_of(source, dropped[source.tag]) for source in lock.sources}


def _facts_of(source: SourceEntry, dropped_boxes: Mapping[str, int]) -> dict[str, object]:
    nested: dict[str, Mapping[str, object]] = {
        "option": source.options,
        "sha256 of": source.companions,
        "excluded": source.excluded,
        "rejected": source.rejected,
        "dropped boxes": dropped_boxes,
    }
    return {
        "task": source.task,
        "format": source.format,
        "annotation": source.annotation,
        "annotation_bytes": source.annotation_bytes,
        "annotation_sha256": source.annotation_sha256,
        "records": source.records,
        "samples": source.samples,
        **{f"{name} {key}": value for name, values in nested.items() for key, value in values.items()},
    }
