"""Sets of an index and a lock alone: a plan opens nothing else, and thousands of rows cost nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.lock import Lock, ShardEntry, SourceEntry, write_lock
from griffon_shards.support.files import sha256_of
from griffon_shards.types import TASKS


def _chars(row: int) -> int:
    return 40 + row * 7919 % 997


def _pictured(_row: int) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source to be: its rows, how often an epoch shows it, and what stands in the index about each row."""

    tag: str
    rows: int
    weight: str = "1"
    chars: Callable[[int], int] = _chars
    pictured: Callable[[int], bool] = _pictured

    @property
    def task(self) -> str:
        return self.tag.partition("_")[0]


def write_synthetic(root: Path, sources: Sequence[Source], *, variants: int = 1, content: str = "0") -> FrozenSet:
    """Write a set without shards and open it; another `content` gives the same rows another digest."""
    root.mkdir(parents=True)
    rows = [
        (source.chars(row), source.pictured(row), row, i, TASKS.index(source.task))
        for i, source in enumerate(sources)
        for row in range(source.rows)
    ]
    index = np.zeros(len(rows), INDEX_DTYPE)
    for position, name in enumerate(("text_chars", "has_image", "record", "source", "task")):
        index[name] = [row[position] for row in rows]
    index["shard"] = index["source"]
    (root / INDEX_NAME).write_bytes(index_header(len(index)) + index.tobytes())
    lock = Lock(
        tool_version="0",
        library_versions={},
        render={"boxes": "text", "variants": variants},
        sources=tuple(_source_entry(source) for source in sources),
        shards=tuple(
            ShardEntry(
                name=f"{source.tag}/{source.tag}-000000.tar",
                samples=source.rows,
                bytes=1024,
                sha256=content * 64,
                dropped_boxes={},
            )
            for source in sources
        ),
        index_sha256=sha256_of(root / INDEX_NAME),
    )
    write_lock(root, lock)
    return open_set(root)


def _source_entry(source: Source) -> SourceEntry:
    return SourceEntry(
        tag=source.tag,
        task=source.task,
        format="ccmd",
        annotation="annotation.jsonl",
        annotation_bytes=1,
        annotation_sha256="0" * 64,
        options={},
        records=source.rows,
        samples=source.rows,
        rejected={},
        weight=source.weight,
    )
