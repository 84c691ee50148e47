"""A frozen set as a plain `webdataset` pipeline, for those who want just that."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from griffon_shards.errors import DataError
from griffon_shards.lock import read_lock

if TYPE_CHECKING:
    import webdataset


def shard_urls(
    root: str | os.PathLike[str], *, sources: Collection[str] | None = None, tasks: Collection[str] | None = None
) -> list[str]:
    """Paths of a set's shards, in its order, of all sources or of those named, of all tasks or of those named.

    Raises:
        DataError: the set is not frozen, or nothing in it has these names.
    """
    lock = read_lock(Path(root))
    sources = [sources] if isinstance(sources, str) else sources  # or "DET" would be found in "RANDDET"
    tasks = [tasks] if isinstance(tasks, str) else tasks
    wanted = {
        source.tag
        for source in lock.sources
        if (sources is None or source.tag in sources) and (tasks is None or source.task in tasks)
    }
    urls = [str(Path(root) / shard.name) for shard in lock.shards if shard.name.partition("/")[0] in wanted]
    if not urls:
        known = ", ".join(f"{source.tag} ({source.task})" for source in lock.sources)
        raise DataError(f"{root}: no shards of sources {sources} and tasks {tasks}; it has {known}")
    return urls


def stream(
    root: str | os.PathLike[str],
    *,
    sources: Collection[str] | None = None,
    tasks: Collection[str] | None = None,
    decode: str | None = "pil",
    shuffle: int = 0,
    seed: int = 0,
) -> "webdataset.WebDataset":
    """A `webdataset.WebDataset` over a frozen set: dicts with `__key__`, `json` and, with a picture, `jpg`.

    Shards are split over nodes (`RANK`, `WORLD_SIZE`) and DataLoader workers. As everywhere in WebDataset there is no
    resumption; for that use `griffon-train`, or `open_set` and your own sampler.

    Args:
        root: the set's folder.
        sources: tags to read, or None for all.
        tasks: tasks to read, or None for all.
        decode: how pictures are decoded (webdataset's image handlers: `pil`, `rgb8`, `torchrgb`, ...); None leaves
            bytes, of the JSON too.
        shuffle: size of the sample buffer, through which shuffled shards go; 0 keeps the set's order, which is
            shuffled within each source already.
        seed: of the buffer and of the order of shards.

    Raises:
        DataError: the set is not frozen, or nothing in it has these names.
    """
    import webdataset  # not at the top: it takes longer to import than all the rest, and only this needs it

    urls = shard_urls(root, sources=sources, tasks=tasks)
    dataset = webdataset.WebDataset(
        urls,
        shardshuffle=len(urls) if shuffle else False,
        nodesplitter=webdataset.split_by_node,
        seed=seed,
        empty_check=False,
    )
    if shuffle:
        dataset = dataset.shuffle(shuffle, seed=seed)
    return dataset.decode(decode) if decode is not None else dataset
