"""Hashes of annotation files, remembered by size and time."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from griffon_prep.sources.resolve import SourceInput
from griffon_shards.support.files import sha256_of, write_whole


class AnnotationHashes:
    """Hashes of annotation files, remembered with size and time so that an unchanged file is not read again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        with contextlib.suppress(FileNotFoundError, orjson.JSONDecodeError):  # a damaged memory is no memory
            self._known = orjson.loads(path.read_bytes())

    def sha256s(self, sources: Sequence[SourceInput]) -> dict[Path, str]:
        """The hashes of all files of some sources; a file is read only if its size or time is not the remembered."""
        return {path: self._sha256(path) for source in sources for path in source.files}

    def _sha256(self, path: Path) -> str:
        status = path.stat()
        size, time, digest = self._known.get(str(path), (0, 0, ""))
        if (size, time) != (status.st_size, status.st_mtime_ns):
            digest = sha256_of(path)
            self._known[str(path)] = [status.st_size, status.st_mtime_ns, digest]
            self._changed = True
        return str(digest)

    def save(self) -> None:
        """Write what is remembered, if there is anything new."""
        if self._changed:
            write_whole(self._path, orjson.dumps(self._known, option=orjson.OPT_INDENT_2))
