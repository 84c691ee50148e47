"""A frozen set as a plain `webdataset` pipeline."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from griffon_shards import images
from griffon_shards.lock import read_lock
from griffon_shards.storage import Location, ObjectPath, as_location
from griffon_shards.storage.reading import open_location
from griffon_shards.support.errors import DataError, SettingsError

if TYPE_CHECKING:
    import webdataset


def shard_urls(
    root: str | os.PathLike[str], *, sources: Collection[str] | None = None, tasks: Collection[str] | None = None
) -> list[str]:
    """The shards of a set as paths for `webdataset.WebDataset`, in the set's order.

    Args:
        root: the set's folder.
        sources: tags to include, or None for all.
        tasks: tasks to include, or None for all.

    Raises:
        DataError: the set is not frozen, or no shard matches.
        SettingsError: webdataset would not read the set's path as a path, or it is a URL.
    """
    location = as_location(os.fspath(root))
    if isinstance(location, ObjectPath):
        raise SettingsError(
            f"{location}: webdataset reads files or the output of commands; copy the set with `griffon-shards copy` "
            "or read it with griffon_shards.stream or griffon_shards.open_set"
        )
    paths = [Path(str(path)) for path in _shard_paths(location, sources, tasks)]
    plain = [str(path) for path in paths]
    if all(map(_is_plain, plain)):
        return plain
    absolute = [str(path.absolute()) for path in paths]  # `./pipe:x` is a path, and `pipe:x` a command to run
    if all(map(_is_plain, absolute)):
        return absolute
    raise SettingsError(
        f"{str(root)!r}: webdataset takes paths for URLs and would misread this one; rename the set's folder, link to "
        "it under another name, or read it with griffon_shards.stream or griffon_shards.open_set"
    )


def _is_plain(path: str) -> bool:
    """Whether the path, parsed as a URL, is only a path."""
    try:
        return urlparse(path)[:3] == ("", "", path)
    except ValueError:  # half an IPv6 address
        return False


def _shard_paths(root: Location, sources: Collection[str] | None, tasks: Collection[str] | None) -> list[Location]:
    lock = read_lock(root)
    sources = [sources] if isinstance(sources, str) else sources  # or "DET" would be found in "RANDDET"
    tasks = [tasks] if isinstance(tasks, str) else tasks
    wanted = {
        source.tag
        for source in lock.sources
        if (sources is None or source.tag in sources) and (tasks is None or source.task in tasks)
    }
    paths: list[Location] = [root / shard.name for shard in lock.shards if shard.name.partition("/")[0] in wanted]
    if not paths:
        known = ", ".join(f"{source.tag} ({source.task})" for source in lock.sources)
        raise DataError(f"{root}: no shards of sources {sources} and tasks {tasks}; it has {known}")
    return paths


def stream(
    root: str | os.PathLike[str],
    *,
    sources: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    decode: str | None = "pil",
    shuffle: int = 0,
    seed: int = 0,
) -> "webdataset.FluidWrapper":
    """A webdataset pipeline over a frozen set: dicts with `__key__`, `json` and, if there is an image, `jpg`.

    Shards are split over nodes (`RANK`, `WORLD_SIZE`) and DataLoader workers. WebDataset cannot resume; to
    resume, use `griffon-train`, or `open_set` with a custom sampler.

    Args:
        root: the set's folder, or its URL.
        sources: tags to read, or None for all.
        tasks: tasks to read, or None for all.
        decode: one of webdataset's image handlers (`pil`, `rgb8`, `torchrgb`, ...); the pixels are those that training
            sees. None leaves image and JSON as bytes.
        shuffle: size of the shuffle buffer in samples; the shards are shuffled too. 0 keeps the set's order, which is
            already shuffled within each source.
        seed: seed of both shuffles.

    Raises:
        DataError: the set is not frozen, or no shard matches.
        SettingsError: `decode` is not an image handler.
    """
    import webdataset  # not at the top: its import is slow, and only this function needs it

    paths = _shard_paths(as_location(os.fspath(root)), sources, tasks)
    dataset = webdataset.FluidWrapper(webdataset.SimpleShardList([str(path) for path in paths]))
    dataset.append(webdataset.split_by_node)
    dataset.append(webdataset.split_by_worker)
    if shuffle:
        dataset.append(webdataset.shuffle(len(paths), seed=seed))
    dataset.append(_open_shards)
    dataset.append(webdataset.pipelinefilter(webdataset.tariterators.tar_file_expander)())
    dataset.append(webdataset.pipelinefilter(webdataset.tariterators.group_by_keys)())
    if shuffle:
        dataset.append(webdataset.shuffle(shuffle, seed=seed))
    if decode is None:
        return dataset
    if decode not in webdataset.autodecode.imagespecs:
        known = ", ".join(webdataset.autodecode.imagespecs)
        raise SettingsError(f"decode={decode!r}: give one of webdataset's image handlers ({known}), or None for bytes")
    container, _, mode = webdataset.autodecode.imagespecs[decode]
    handler = None if container == "pil" else webdataset.autodecode.ImageHandler(decode)
    return dataset.decode(partial(_decoded, handler, mode.upper()))


def _open_shards(shards: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Open files by path: webdataset would parse paths as URLs, cut them at `#` and run what follows `pipe:`."""
    for shard in shards:
        with open_location(as_location(shard["url"])) as stream:
            yield {**shard, "stream": stream, "local_path": shard["url"]}


def _decoded(handler: Callable[[str, bytes], Any] | None, mode: str, key: str, data: bytes) -> Any:  # noqa: ANN401
    """Decode an image with our decoder, then convert it with webdataset's handler. None for other members."""
    if key.removeprefix(".") != "jpg":
        return None
    image = images.decode(data, mode)
    if handler is None:
        return image
    plain = BytesIO()
    image.save(plain, "TIFF")
    return handler("tiff", plain.getvalue())
