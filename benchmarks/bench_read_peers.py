"""What `bench_read.py` compares raw reading with: webdataset, Megatron-Energon and MosaicML Streaming, as they advise.

Run in an environment that has them, with a number of worker processes (0 reads in this one) and the samples of a batch.
Each prints its seconds, imports not counted, then samples and bytes: every sample's key, picture and JSON in this
process once, shuffled.
"""

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

_BUFFER = 1000
_AHEAD = 100_000  # samples that Streaming may make ready; more than there are, so that it never waits

Found = tuple[float, int, int]


def webdataset_loop(root: Path, workers: int, batch_samples: int) -> Found:
    """Shuffled shards and a shuffle buffer, batches made in the workers, bytes not decoded."""
    import webdataset

    from griffon_shards import shard_urls

    urls = shard_urls(root)
    began = time.perf_counter()
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0)
        .shuffle(_BUFFER, seed=0)
        .to_tuple("__key__", "jpg", "json")
        .batched(batch_samples, collation_fn=_as_it_is)
    )
    return _taken(began, webdataset.WebLoader(dataset, batch_size=None, num_workers=workers))


def energon_loop(root: Path, workers: int, batch_samples: int) -> Found:
    """A crude dataset whose cooker hands the bytes on."""
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_train_dataset,
        stateless,
    )

    encoder: Any = DefaultTaskEncoder()
    encoder.cookers = [Cooker(stateless(_as_it_is))]
    encoder.decoder = None
    began = time.perf_counter()
    dataset = get_train_dataset(
        root,
        dataset_config="crude.yaml",
        batch_size=batch_samples,
        shuffle_buffer_size=_BUFFER,
        max_samples_per_sequence=100,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        task_encoder=encoder,
        repeat=False,
    )
    columns = (zip(batch["__key__"], batch["jpg"], batch["json"], strict=True) for batch in get_loader(dataset))
    return _taken(began, columns)


def streaming_loop(folder: Path, workers: int, batch_samples: int) -> Found:
    """Local MDS shards, its default shuffle, a torch DataLoader."""
    _without_torchvision()
    from streaming import StreamingDataLoader, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    began = time.perf_counter()
    dataset = StreamingDataset(
        local=str(folder), remote=None, shuffle=True, shuffle_seed=0, batch_size=batch_samples, predownload=_AHEAD
    )
    loader = StreamingDataLoader(dataset, batch_size=batch_samples, num_workers=workers, collate_fn=_as_it_is)
    return _taken(began, ([(item["key"], item["jpg"], item["json"]) for item in batch] for batch in loader))


def _taken(began: float, batches: Iterable[Iterable[tuple[str, bytes, bytes]]]) -> Found:
    """Take all samples: seconds, samples, bytes."""
    seen: set[str] = set()
    taken_bytes = 0
    for batch in batches:
        for key, image, json in batch:
            seen.add(key)
            taken_bytes += len(image) + len(json)
    return time.perf_counter() - began, len(seen), taken_bytes


def write_mds(root: Path, folder: Path) -> None:
    """The samples of a frozen set as MDS."""
    _without_torchvision()
    from streaming import MDSWriter

    from griffon_shards import open_set
    from griffon_shards.tar import split_sample

    frozen = open_set(root)
    with MDSWriter(out=str(folder), columns={"key": "str", "jpg": "bytes", "json": "bytes"}) as writer:
        for row in range(len(frozen)):
            key, image, json = split_sample(frozen.raw(row), frozen.where(row))
            writer.write({"key": key, "jpg": image, "json": json})


def _without_torchvision() -> None:
    """Streaming imports it for data sets of its own, not read here; there is none for a torch for CPUs."""
    import transformers.utils.import_utils  # it looks for torchvision once, and must not find what stands in for it

    assert not transformers.utils.import_utils.is_torchvision_available()
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        sys.modules[f"torchvision{name}"] = MagicMock(VisionDataset=object)


def _as_it_is(value: Any) -> Any:  # noqa: ANN401 - whatever the library gives
    return value


if __name__ == "__main__":
    name, source, *rest = sys.argv[1:]
    if name == "mds":
        write_mds(Path(source), Path(rest[0]))
    else:
        loop = {"webdataset": webdataset_loop, "energon": energon_loop, "streaming": streaming_loop}[name]
        seconds, samples, sample_bytes = loop(Path(source), *map(int, rest))
        sys.stdout.write(f"\n[{seconds}, {samples}, {sample_bytes}]\n")
