"""Copies of annotations that are in object stores: readers, which need random access, open these.

Every URL has its path below the mirror's folder. Names relative to a data root are therefore those on disk, and so are
the samples.
"""

import os
import posixpath
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import orjson

from griffon_prep.readers import FORMATS
from griffon_prep.readers.folders import TEXTS
from griffon_prep.readers.yolo_data import read_data_yaml
from griffon_prep.sources.compressed import SUFFIXES
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.storage.node_cache import default_cache
from griffon_shards.storage.object_path import PROTOCOLS
from griffon_shards.storage.transfer import RANGE_BYTES, REQUESTS, fetch
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import UNUSABLE, write_whole
from griffon_shards.support.folder_lock import wait_for_lock

_Stamp = tuple[int, str]

_VERSIONS = "versions.json"


def default_work() -> Path:
    """The folder for the work files of builds that read or write object stores."""
    return default_cache() / "builds"


class Mirror:
    """A folder with copies of objects, shared by all builds of this machine; a context manager.

    A copy is fetched once, and again when the object has another size or version. If a process is killed meanwhile, all
    are fetched again, as nobody knows which versions they have. Paths outside the mirror's folder
    are those of files on disk, which every method leaves alone.

    Attributes:
        folder: the mirror's folder.
        used: whether anything was fetched, or found to be up to date.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.normpath(folder.absolute()))
        self._stamps_file = self.folder / _VERSIONS
        self._lock: BinaryIO | None = None
        self._stamps: dict[str, _Stamp] = {}
        self._changed = False
        self.used = False

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes change the mirror."""
        if self._lock is not None:
            self._save()
            self._lock.close()
            self._lock = None

    def path_of(self, location: Location) -> Path:
        """The path of a location's copy on this machine; a path on disk is its own."""
        return self.folder / str(location).replace("://", "/", 1) if isinstance(location, ObjectPath) else location

    def url_of(self, path: Path) -> ObjectPath | None:
        """The URL that a path in the mirror is a copy of, or None for other paths."""
        if not path.is_relative_to(self.folder):
            return None
        protocol, _, rest = path.relative_to(self.folder).as_posix().partition("/")
        return ObjectPath(f"{protocol}://{rest}") if protocol in PROTOCOLS and rest else None

    def with_urls(self, text: str) -> str:
        """A message with URLs instead of the paths of their copies."""
        for protocol in PROTOCOLS:
            text = text.replace(f"{self.folder}/{protocol}/", f"{protocol}://")
        return text

    def fetch(self, path: Path) -> None:
        """Fetch the file or the folder that a path stands for, if there is one and its copy is not up to date.

        Of a folder, the files that annotations consist of are fetched. Of others, only the names matter; they become
        empty files.

        Raises:
            StorageError: the store cannot be used.
            OSError: the disk is full, or the mirror cannot be written.
        """
        if (url := self.url_of(path)) is None:
            return
        self._open()
        try:
            stamp = url.stamp()
        except FileNotFoundError:
            self._fetch_folder(url, path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():  # it was one when it was fetched last
                self._change()
                shutil.rmtree(path)
            self._fetch_object(url, path, stamp)
        self._save()

    def fetch_beside(self, path: Path, keep: Callable[[str], bool]) -> None:
        """Fetch files in the folder of a path whose names are wanted. Raises as `fetch`."""
        if (url := self.url_of(path.parent)) is None:
            return
        self._open()
        for name, stamp in url.stamps():
            if "/" not in name and keep(name):
                self._fetch_object(url / name, path.parent / name, stamp)
        self._save()

    def _fetch_folder(self, url: ObjectPath, folder: Path) -> None:
        """Fetch the texts below a URL, and remove what is no longer there."""
        stamps = {name: stamp for name, stamp in url.stamps() if _is_plain(name)}
        _refuse_both(url, stamps)
        if others := _others(folder, stamps):
            self._change()
            _remove(others)

        def bring(name: str) -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if posixpath.splitext(name)[1].lower() in TEXTS:
                self._fetch_object(url / name, path, stamps[name])
            elif not path.exists():
                self._change()
                path.touch()

        if stamps:
            with ThreadPoolExecutor(REQUESTS) as pool:
                for _ in pool.map(bring, stamps):
                    pass

    def _fetch_object(self, url: ObjectPath, path: Path, stamp: _Stamp) -> None:
        if tuple(self._stamps.get(str(url), ())) == stamp and path.is_file() and path.stat().st_size == stamp[0]:
            return
        self._change()
        self._stamps.pop(str(url), None)
        fetch(url, path, size_bytes=stamp[0])
        if stamp[0] > RANGE_BYTES and url.stamp() != stamp:  # some of its ranges are of another version
            raise DataError(f"{url}: was written again while it was fetched; rerun the same command")
        self._stamps[str(url)] = stamp

    def _open(self) -> None:
        """Wait until no other process changes the mirror, and read what it holds."""
        if self._lock is not None:
            return
        self.used = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = wait_for_lock(self.folder / "lock", whose=f"{self.folder}: another build fetches annotations")
        except OSError as error:
            if error.errno not in UNUSABLE:
                raise
            raise SettingsError(f"{self.folder}: not writable ({error.strerror}); give --work a folder") from None
        self._stamps = {}
        with suppress(FileNotFoundError, orjson.JSONDecodeError):  # without it, everything is fetched again
            self._stamps = orjson.loads(self._stamps_file.read_bytes())

    def _change(self) -> None:
        """Forget the versions on disk before a copy is changed."""
        if not self._changed:
            self._changed = True
            self._stamps_file.unlink(missing_ok=True)

    def _save(self) -> None:
        if self._changed:
            write_whole(self._stamps_file, orjson.dumps(self._stamps))
            self._changed = False


def state_of(folder: Path) -> str:
    """A text that differs once a copy in a mirror's folder is another one."""
    try:
        return str((folder / _VERSIONS).stat().st_mtime_ns)
    except FileNotFoundError:
        return "none"


def _is_plain(name: str) -> bool:
    """Whether the name of an object is one that readers see: no folder marker, nothing hidden."""
    return all(part and not part.startswith(".") for part in name.split("/"))


def _refuse_both(url: ObjectPath, names: Collection[str]) -> None:
    """Raise DataError if a name is that of an object and of a folder, which only an object store can hold."""
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in names:
                raise DataError(f"{url / str(parent)}: is an object, and {url / name} is below it; rename one of them")


def _others(folder: Path, names: Collection[str]) -> list[Path]:
    """What is not in the store any more, the deepest first; also empty folders, whose names files may have now."""
    if folder.is_file():
        return [folder]
    others: list[Path] = []
    kept: set[Path] = set()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or (not path.is_dir() and path.relative_to(folder).as_posix() in names):
            kept.add(path.parent)
        else:
            others.append(path)
    return others


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.rmdir() if path.is_dir() else path.unlink()


def fetch_companions(mirror: Mirror, annotation: Path, format_name: str, options: Mapping[str, str]) -> None:
    """Fetch the files and folders that a format may read besides an annotation; nothing of an annotation on disk.

    Raises:
        DataError: the file that names them is damaged.
        StorageError: the store cannot be used.
        OSError: as `Mirror.fetch`.
    """
    if mirror.url_of(annotation) is None:
        return
    for name in FORMATS[format_name].COMPANIONS:
        mirror.fetch_beside(annotation, {name + suffix for suffix in SUFFIXES}.__contains__)
    if format_name in _FURTHER:
        _FURTHER[format_name](mirror, annotation, options)


def _fetch_split(mirror: Mirror, annotation: Path, options: Mapping[str, str]) -> None:
    """The list of a split beside the folder of VOC or Flickr30k; what is below the folder has been fetched."""
    name = f"{options.get('split', '').removesuffix('.txt')}.txt"
    if name != ".txt" and "/" not in name:
        mirror.fetch(annotation.with_name(name))
        mirror.fetch(annotation.parent / "ImageSets" / "Main" / name)


def _fetch_yolo(mirror: Mirror, annotation: Path, _options: Mapping[str, str]) -> None:
    """The labels of YOLO and the names of its images: below the folder of data.yaml, or where its `path` leads."""
    beside = annotation.parent
    mirror.fetch(beside)
    root = read_data_yaml(annotation).root
    for folder in (beside / root, beside.parent / "datasets" / root):
        outside = Path(os.path.normpath(folder))
        if root and not root.startswith("/") and not outside.is_relative_to(beside):
            mirror.fetch(outside)


def _fetch_openimages(mirror: Mirror, annotation: Path, _options: Mapping[str, str]) -> None:
    """The class descriptions and the verified labels of Open Images."""
    mirror.fetch_beside(annotation, lambda name: "class-descriptions" in name or "human-imagelabels" in name)


_FURTHER: Mapping[str, Callable[[Mirror, Path, Mapping[str, str]], None]] = {
    "yolo": _fetch_yolo,
    "flickr30k": _fetch_split,
    "voc": _fetch_split,
    "openimages": _fetch_openimages,
}
