"""A frozen set as a plain `webdataset` pipeline, for those who want just that."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from griffon_shards import images
from griffon_shards.lock import read_lock
from griffon_shards.support.errors import DataError, SettingsError

if TYPE_CHECKING:
    import webdataset


def shard_urls(
    root: str | os.PathLike[str], *, sources: Collection[str] | None = None, tasks: Collection[str] | None = None
) -> list[str]:
    """A set's shards as `webdataset.WebDataset` takes them: paths that it reads as they are.

    They stand in the set's order, of all sources or of those named, of all tasks or of those named.

    Raises:
        DataError: the set is not frozen, or nothing in it has these names.
        SettingsError: webdataset would take the set's path for something else than a path.
    """
    paths = _shard_paths(Path(root), sources, tasks)
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
    """Whether the path, taken for a URL, is a path and nothing else."""
    try:
        return urlparse(path)[:3] == ("", "", path)
    except ValueError:  # half an IPv6 address
        return False


def _shard_paths(root: Path, sources: Collection[str] | None, tasks: Collection[str] | None) -> list[Path]:
    lock = read_lock(root)
    sources = [sources] if isinstance(sources, str) else sources  # or "DET" would be found in "RANDDET"
    tasks = [tasks] if isinstance(tasks, str) else tasks
    wanted = {
        source.tag
        for source in lock.sources
        if (sources is None or source.tag in sources) and (tasks is None or source.task in tasks)
    }
    paths = [root / shard.name for shard in lock.shards if shard.name.partition("/")[0] in wanted]
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
    """A webdataset pipeline over a frozen set: dicts with `__key__`, `json` and, with a picture, `jpg`.

    Shards are split over nodes (`RANK`, `WORLD_SIZE`) and DataLoader workers. As everywhere in WebDataset there is no
    resumption; for that use `griffon-train`, or `open_set` and your own sampler.

    Args:
        root: the set's folder.
        sources: tags to read, or None for all.
        tasks: tasks to read, or None for all.
        decode: what pictures become, by the names of webdataset's image handlers (`pil`, `rgb8`, `torchrgb`, ...), with
            the pixels that training sees; None leaves bytes, of the JSON too.
        shuffle: size of the sample buffer, through which shuffled shards go; 0 keeps the set's order, which is
            shuffled within each source already.
        seed: of the buffer and of the order of shards.

    Raises:
        DataError: the set is not frozen, or nothing in it has these names.
        SettingsError: no image handler is called `decode`.
    """
    import webdataset  # not at the top: it takes longer to import than all the rest, and only this needs it

    paths = _shard_paths(Path(root), sources, tasks)
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
    """Open files by their paths: webdataset would take them for URLs, cut them at `#` and run what follows `pipe:`."""
    for shard in shards:
        with open(shard["url"], "rb") as stream:  # noqa: PTH123 - the path is a string here
            yield {**shard, "stream": stream, "local_path": shard["url"]}


def _decoded(handler: Callable[[str, bytes], Any] | None, mode: str, key: str, data: bytes) -> Any:  # noqa: ANN401
    """A picture by our decoder, put by one of webdataset's handlers into arrays or tensors; None for what is none."""
    if key.removeprefix(".") != "jpg":
        return None
    picture = images.decode(data, mode)
    if handler is None:
        return picture
    plain = BytesIO()
    picture.save(plain, "TIFF")
    return handler("tiff", plain.getvalue())
