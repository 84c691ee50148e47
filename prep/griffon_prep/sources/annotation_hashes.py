"""A cache of annotation hashes, keyed by size and modification time."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from griffon_prep.readers.folders import sha256_of_input, stamp_of_input
from griffon_prep.sources.resolve import SourceInput
from griffon_shards.support.files import write_whole


class AnnotationHashes:
    """Hashes of annotation files and folders, cached so that they are read again only if size or time have changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):  # a damaged cache is ignored
            self._known = orjson.loads(path.read_bytes())

    def sha256s(self, sources: Sequence[SourceInput]) -> dict[Path, str]:
        """Hash all files and folders of the sources. What has the same size and modification time is not read again."""
        return {path: self._sha256(path) for source in sources for path in source.all_files}

    def _sha256(self, path: Path) -> str:
        stamp = stamp_of_input(path)
        *known, digest = self._known.get(str(path), (0, 0, ""))
        if known != list(stamp):
            digest = sha256_of_input(path)
            self._known[str(path)] = [*stamp, digest]
            self._changed = True
        return str(digest)

    def save(self) -> None:
        """Write the cache if it has changed."""
        if self._changed:
            write_whole(self._path, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
