"""A cache of annotation hashes, keyed by size and modification time."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from griffon_prep.sources.resolve import SourceInput
from griffon_shards.support.files import sha256_of, write_whole


class AnnotationHashes:
    """Hashes of annotation files, cached with size and modification time so that unchanged files are not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):  # a damaged cache is ignored
            self._known = orjson.loads(path.read_bytes())

    def sha256s(self, sources: Sequence[SourceInput]) -> dict[Path, str]:
        """Hash all files of the sources. A file is read only if its size or modification time has changed."""
        return {path: self._sha256(path) for source in sources for path in source.all_files}

    def _sha256(self, path: Path) -> str:
        status = path.stat()
        size, time, digest = self._known.get(str(path), (0, 0, ""))
        if (size, time) != (status.st_size, status.st_mtime_ns):
            digest = sha256_of(path)
            self._known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
            self._changed = True
        return str(digest)

    def save(self) -> None:
        """Write the cache if it has changed."""
        if self._changed:
            write_whole(self._path, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
