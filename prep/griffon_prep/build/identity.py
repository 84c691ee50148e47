"""The identity of a build: two builds with the same identity make the same samples."""

from collections.abc import Mapping
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
        "render": settings.lock_settings(),
        "sources": [
            source_identity(source, sha256s[source.annotation], _companion_hashes(source, sha256s))
            for source in settings.sources
        ],
    }


def source_identity(source: SourceInput, annotation_sha256: str, companions: Mapping[str, str]) -> dict[str, Any]:
    """The identity of a source: two sources with the same identity have the same records."""
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
                "options": {**source.options, **({"format": source.format} if source.tag in named else {})},
            }
            for source in lock.sources
        ],
    }
