"""The identity of a build: two builds with the same identity make the same samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from griffon_prep.build.settings import BuildSettings
from griffon_prep.sources.resolve import SourceInput
from griffon_shards.lock import Lock


def identity(settings: BuildSettings, sha256s: Mapping[Path, str]) -> dict[str, Any]:
    """The identity of a build, computed without reading a record.

    Args:
        settings: the settings of the build.
        sha256s: hashes of the files of all sources.
    """
    return {
        "render": settings.render.in_lock(),
        "sources": [
            source_identity(source, [sha256s[path] for path in source.all_files]) for source in settings.sources
        ],
    }


def source_identity(source: SourceInput, sha256s: Sequence[str]) -> dict[str, Any]:
    """The identity of a source: two sources with the same identity have the same records.

    Args:
        source: the source.
        sha256s: hashes of `source.all_files`.
    """
    names = source.file_names
    lists = [path.name for path in (*source.exclude, *source.exclude_keys)]
    return {
        "tag": source.tag,
        "task": source.task,
        "annotation": names[0],
        "annotation_sha256": sha256s[0],
        "companions": dict(zip(names[1:], sha256s[1 : len(names)], strict=True)),
        "excluded": dict(zip(lists, sha256s[len(names) :], strict=True)),
        "options": dict(source.options),
    }


def identity_of_lock(lock: Lock, settings: BuildSettings) -> dict[str, Any]:
    """The identity of the build that froze a set, without the formats that the new manifest does not state."""
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
                "excluded": dict(source.excluded),
                "options": {**source.options, **({"format": source.format} if source.tag in named else {})},
            }
            for source in lock.sources
        ],
    }
