"""The inputs of a comparison: frozen sets, folders of images, lists of names. Each is read piece by piece."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.image_list import ImageListEntry, read_image_list
from griffon_shards.lock import LOCK_NAME
from griffon_shards.storage import Location, ObjectPath
from griffon_shards.support.errors import DataError, SettingsError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_PER_JOB = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A set, a folder or a list.

    Attributes:
        path: where it is.
        kind: `set`, `folder` or `list`.
        sources: names of its sources in results: the tags of a set, otherwise its own name alone.
        first_source: number of the first of them among all sources of its side.
        images: number of images, or of samples with one.
        unnamed: number of images in a list whose names do not say which image it is.
    """

    path: Location
    kind: str
    sources: tuple[str, ...]
    first_source: int
    images: int
    unnamed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Some images of an input.

    Attributes:
        input: the input.
        items: rows of a set, paths below a folder, or entries of a list.
        image_data: Visual Genome's `image_data.json`, or None.
        perceptual: whether images are decoded for their perceptual hash.
    """

    input: Input
    items: tuple[int, ...] | tuple[str, ...] | tuple[ImageListEntry, ...]
    image_data: Path | None
    perceptual: bool


def open_inputs(paths: tuple[Location, ...]) -> tuple[Input, ...]:
    """Look at every input and count its images; sources of several inputs are told apart by the inputs' names.

    Raises:
        SettingsError: an input does not exist, or a list cannot be read.
        DataError: a set is damaged, or an input has no images.
    """
    inputs: list[Input] = []
    names = [path.resolve().name for path in paths]
    for path, name in zip(paths, names, strict=True):
        images = unnamed = 0
        sources: tuple[str, ...] = (name if names.count(name) == 1 else str(path),)
        if (path / LOCK_NAME).exists():
            frozen = open_set(path)
            frozen.check_shards()
            prefix = f"{sources[0]}/" if len(paths) > 1 else ""
            sources = tuple(f"{prefix}{source.tag}" for source in frozen.lock.sources)
            kind, images = "set", int(np.count_nonzero(frozen.index["has_image"]))
        elif isinstance(path, ObjectPath):
            raise SettingsError(
                f"{path}: no frozen set there; only frozen sets are read from URLs, so copy folders of images and "
                "lists of names to this machine"
            )
        elif path.is_dir():
            kind, images = "folder", sum(1 for _ in _files(path))
        elif path.is_file():
            kind = "list"
            for entry in read_image_list(path):
                images, unnamed = images + 1, unnamed + bool(entry.path)
        else:
            raise SettingsError(f"{path}: no such set, folder or list; give one that exists")
        if not images:
            raise DataError(f"{path}: has no images")
        first = sum(len(one.sources) for one in inputs)
        inputs.append(Input(path=path, kind=kind, sources=sources, first_source=first, images=images, unnamed=unnamed))
    return tuple(inputs)


def jobs(inputs: tuple[Input, ...], image_data: Path | None, *, perceptual: bool) -> Iterator[Job]:
    """The images of all inputs, in pieces that a process examines at a time."""
    for one in inputs:
        items: Iterator[int] | Iterator[str] | Iterator[ImageListEntry]
        if one.kind == "set":
            items = _rows(open_set(one.path))
        else:
            local = local_path(one)
            items = _files(local) if one.kind == "folder" else read_image_list(local)
        while piece := tuple(islice(items, _PER_JOB)):
            yield Job(input=one, items=piece, image_data=image_data, perceptual=perceptual)  # type: ignore[arg-type]


def local_path(one: Input) -> Path:
    """The path of a folder or a list, which is on this machine."""
    assert isinstance(one.path, Path)
    return one.path


def _rows(frozen: FrozenSet) -> Iterator[int]:
    """The rows with an image."""
    for start in range(0, len(frozen), 1 << 16):
        yield from (np.flatnonzero(frozen.index["has_image"][start : start + (1 << 16)]) + start).tolist()


def _files(folder: Path) -> Iterator[str]:
    """The images below a folder, by their endings, as paths relative to it. Linked folders are entered, each once."""
    waiting, entered = [""], set()
    while waiting:
        below = waiting.pop()
        status = (folder / below).stat()
        if (status.st_dev, status.st_ino) in entered:
            continue
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir():
                    waiting.append(name)
                elif entry.name.lower().endswith(ENDINGS) and (entry.is_file() or entry.is_symlink()):
                    yield name
