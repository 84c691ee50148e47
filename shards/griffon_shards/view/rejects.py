"""The records that a build left out, from `rejects.jsonl`, and their images where they can be found."""

import contextlib
import os
import threading
from array import array
from pathlib import Path
from typing import Any

import orjson

from griffon_shards import images
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.lock import REJECTS_NAME
from griffon_shards.storage import ObjectPath
from griffon_shards.storage.transfer import fetch
from griffon_shards.support.errors import DataError
from griffon_shards.view.errors import NotFoundError

_MAX_FOLDERS = 100
_DEPTH = 2
_MAX_IMAGE_BYTES = 64 << 20


class Rejects:
    """The rejects of a set. The file is read when they are first asked for; lines are kept on disk.

    A reject's detail begins with the path of its image, relative to the source's folder of images. The set does not
    know that folder, so it is looked for in `data_root` and the folders below it, two levels deep.
    """

    def __init__(self, frozen: FrozenSet, data_root: Path | None, cache: Path) -> None:
        self._root, self._digest, self._cache = frozen.root, frozen.lock.digest, cache
        self._sources = frozen.lock.sources
        self._data_root = data_root
        self._lock = threading.Lock()
        self._path = Path(REJECTS_NAME)  # set when the file is first read
        self._kinds: list[tuple[str, str]] | None = None  # a source and a reason
        self._kind = array("I")
        self._offsets = array("Q")
        self._folders: list[Path] | None = None

    def counts(self) -> list[dict[str, Any]]:
        """Rejects by reason and source, from the lock."""
        return [
            {"reason": reason, "source": source.tag, "count": count}
            for source in self._sources
            for reason, count in sorted(source.rejected.items())
        ]

    def page(self, reason: str, source: str, offset: int, limit: int) -> tuple[int, list[dict[str, Any]]]:
        """The number of rejects with a reason and a source (empty for any), and some of them.

        Raises:
            DataError: the file is damaged.
        """
        kinds = self._read()
        wanted = {place for place, kind in enumerate(kinds) if source in ("", kind[0]) and reason in ("", kind[1])}
        numbers = [number for number, kind in enumerate(self._kind) if kind in wanted]
        return len(numbers), [self._shown(number) for number in numbers[offset : offset + limit]]

    def image(self, number: int) -> bytes:
        """The image of a reject.

        Raises:
            NotFoundError: there is no such reject.
            DataError: its image was not found, or is not one that is shown.
        """
        self._read()
        path = self._image_path(self._line(number))
        if path is None:
            raise DataError(f"reject {number}: its image was not found; give the folder of the images with --data-root")
        with path.open("rb") as file:
            data = file.read(_MAX_IMAGE_BYTES + 1)
        if len(data) > _MAX_IMAGE_BYTES:
            raise DataError(f"reject {number}: its image has more than {_MAX_IMAGE_BYTES:,} bytes")
        return data

    def _read(self) -> list[tuple[str, str]]:
        with self._lock:
            if self._kinds is None:
                self._path = self._local_path()
                places: dict[tuple[str, str], int] = {}
                offset = 0
                for raw in self._path.open("rb") if self._path.exists() else ():
                    line = _decoded(raw, self._path)
                    self._kind.append(places.setdefault((line["source"], line["reason"]), len(places)))
                    self._offsets.append(offset)
                    offset += len(raw)
                self._kinds = list(places)
            return self._kinds

    def _local_path(self) -> Path:
        """The file; of a set at a URL, a copy in the cache."""
        if not isinstance(self._root, ObjectPath):
            return self._root / REJECTS_NAME
        path = self._cache / f"{self._digest}.{REJECTS_NAME}"
        if not path.exists():
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                fetch(self._root / REJECTS_NAME, path)
        return path

    def _line(self, number: int) -> dict[str, Any]:
        if not 0 <= number < len(self._offsets):
            raise NotFoundError(f"there is no reject {number}; {self._path} has {len(self._offsets)} lines")
        with self._path.open("rb") as file:
            file.seek(self._offsets[number])
            return _decoded(file.readline(), self._path)

    def _shown(self, number: int) -> dict[str, Any]:
        line = self._line(number)
        shown = {name: line[name] for name in ("source", "record", "reason", "detail")}
        return {"number": number, **shown, "image": self._image_path(line) is not None}

    def _image_path(self, line: dict[str, Any]) -> Path | None:
        """Where the image lies that a reject's detail begins with; never outside the data root."""
        name, separator, _ = str(line["detail"]).partition(": ")
        parts = Path(name).parts
        if not separator or not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
            return None
        for folder in self._image_folders():
            path = folder / name
            try:
                if path.is_file() and _is_image(path):
                    return path
            except OSError:  # no permission, or the name is too long
                continue
        return None

    def _image_folders(self) -> list[Path]:
        with self._lock:
            if self._folders is None:
                self._folders = [] if self._data_root is None else _folders(self._data_root)
            return self._folders


def _folders(root: Path) -> list[Path]:
    """A folder and those below it, the nearest first."""
    folders, start = [root], 0
    for _ in range(_DEPTH):
        level, start = folders[start:], len(folders)
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in entries if entry.is_dir())
            except OSError:
                continue
            folders += [folder / name for name in names[: _MAX_FOLDERS - len(folders)]]
    return folders


def _is_image(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            images.format_of(file.read(256))
        except images.ImageError:
            return False
    return True


def _decoded(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        line: dict[str, Any] = orjson.loads(raw)
        if not all(isinstance(line[name], kind) for name, kind in _FIELDS.items()):
            raise TypeError("a field is of another type")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r:.100}); copy the set again or rebuild it") from None
    return line


_FIELDS = {"source": str, "record": int, "reason": str, "detail": str}
