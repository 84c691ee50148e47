"""Other people's loaders read a frozen set as it is, and find in it what our own reader finds."""

import pickle
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from griffon_shards.types import BoxXYXY, Sample, Turn

pytestmark = pytest.mark.interop


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The content of a sample as a loader gave it."""

    key: str
    image_size: tuple[int, int] | None
    turns: tuple[Turn, ...]
    region_xyxy_px: BoxXYXY | None
    boxes_xyxy_px: tuple[BoxXYXY, ...] | None
    task: str


@pytest.fixture(scope="session")
def ours(samples: list[Sample]) -> list[Seen]:
    """All samples in shard order. The set must have every kind of sample, or the tests say nothing."""
    seen = [
        Seen(
            key=sample.key,
            image_size=None if sample.image is None else Image.open(BytesIO(sample.image)).size,
            turns=sample.turns,
            region_xyxy_px=sample.region_xyxy_px,
            boxes_xyxy_px=sample.boxes_xyxy_px,
            task=sample.task,
        )
        for sample in samples
    ]
    assert any(sample.image_size is None for sample in seen)
    assert any(sample.region_xyxy_px for sample in seen)
    assert {bool(sample.boxes_xyxy_px) for sample in seen} == {False, True}
    assert any(len(sample.turns) > 2 for sample in seen)
    return seen


def seen_by_peer(key: str, picture: Image.Image | None, document: dict[str, Any]) -> Seen:
    """The same of a loader's own sample: a decoded image and a decoded `KEY.json`."""
    x1, y1, x2, y2 = document["region"]
    return Seen(
        key=key,
        image_size=None if picture is None else picture.size,
        turns=tuple(Turn(role=turn["from"], text=turn["value"]) for turn in document["conversations"]),
        region_xyxy_px=(x1, y1, x2, y2) if any((x1, y1, x2, y2)) else None,
        boxes_xyxy_px=tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in document["boxes"]),
        task=document["task"],
    )


def by_key(seen: Iterable[Seen]) -> list[Seen]:
    return sorted(seen, key=lambda sample: sample.key)


def test_webdataset_reads_all_in_shard_order(tars: list[str], ours: list[Seen]) -> None:
    from webdataset import WebDataset

    peer = WebDataset(tars, shardshuffle=False).decode("pil")
    assert [seen_by_peer(raw["__key__"], raw.get("jpg"), raw["json"]) for raw in peer] == ours


def test_wids_reads_any_row(frozen_set: Path, ours: list[Seen]) -> None:
    from wids import ShardListDataset

    peer = ShardListDataset(str(frozen_set / "wids.json"), localname=str)
    assert len(peer) == len(ours)
    step = next(step for step in (97, 101) if len(ours) % step)  # from shard to shard, each row once
    for row in ((position * step) % len(ours) for position in range(len(ours))):
        raw = peer[row]
        assert seen_by_peer(raw["__key__"], raw.get(".jpg"), raw[".json"]) == ours[row]


@pytest.mark.parametrize("text_only_first", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_keeps_all_images_when_told_the_features(
    tars: list[str], ours: list[Seen], tmp_path: Path, text_only_first: bool, streaming: bool
) -> None:
    from datasets import load_dataset

    peer = load_dataset(
        "webdataset",
        data_files=images_last(tars, ours) if text_only_first else tars,
        features=hugging_face_features(),
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    seen = [seen_by_peer(raw["__key__"], raw["jpg"], raw["json"]) for raw in peer]
    assert by_key(seen) == by_key(ours)


def test_hugging_face_finds_the_features_where_the_first_samples_have_images_and_boxes(
    tars: list[str], ours: list[Seen], tmp_path: Path
) -> None:
    from datasets import load_dataset

    lacking = {sample.key.rpartition("-")[0] for sample in ours if not sample.image_size or not sample.boxes_xyxy_px}
    complete_first = sorted(tars, key=lambda tar: Path(tar).parent.name in lacking)
    assert Path(complete_first[0]).parent.name not in lacking
    peer = load_dataset("webdataset", data_files=complete_first, split="train", cache_dir=str(tmp_path))
    assert peer.features["json"] == hugging_face_features()["json"]
    assert peer.num_rows == len(ours)
    assert sum(raw["jpg"] is not None for raw in peer) == sum(sample.image_size is not None for sample in ours)
    assert sum(any(raw["json"]["region"]) for raw in peer) == sum(bool(sample.region_xyxy_px) for sample in ours)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_loads_the_folder(frozen_set: Path, ours: list[Seen], tmp_path: Path, streaming: bool) -> None:
    from datasets import load_dataset

    shown = tmp_path / "set"
    shutil.copytree(frozen_set, shown)
    for text_only in {sample.key.rpartition("-")[0] for sample in ours if sample.image_size is None}:
        (shown / text_only).rename(shown / f"AAA_{text_only}")  # now the first by name
    peer = load_dataset(str(shown), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))
    seen = [seen_by_peer(raw["__key__"], raw["jpg"], raw["json"]) for raw in peer]
    assert by_key(seen) == by_key(ours)


def test_energon_would_write_the_same_offsets(frozen_set: Path, tars: list[str], tmp_path: Path) -> None:
    from megatron.energon.flavors.webdataset.prepare import WebdatasetPreparator

    names = [str(Path(tar).relative_to(frozen_set)) for tar in tars]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(frozen_set / name, tmp_path / name)
    WebdatasetPreparator.prepare_dataset(tmp_path, names, tar_index_only=True, workers=1)
    for name in names:
        assert (tmp_path / f"{name}.idx").read_bytes() == (frozen_set / f"{name}.idx").read_bytes()


def test_energon_in_order_is_shard_order(frozen_set: Path, ours: list[Seen]) -> None:
    from megatron.energon import get_loader, get_val_dataset

    peer = get_val_dataset(frozen_set, split_part="train", worker_config=energon_workers(0), batch_size=1)
    assert [plain(key) for batch in get_loader(peer) for key in batch.__key__] == [sample.key for sample in ours]


@pytest.mark.parametrize("workers", [0, 2])
def test_energon_reads_every_sample_once_an_epoch(frozen_set: Path, ours: list[Seen], workers: int) -> None:
    peer = energon_loader(frozen_set, workers, repeat=False)
    seen = [seen_by_peer(plain(raw.__key__), raw.image or None, raw.caption) for raw in peer]
    assert by_key(seen) == by_key(ours)
    assert seen != ours  # it was shuffled


def test_energon_batches_may_mix_samples_with_and_without_images(frozen_set: Path, ours: list[Seen]) -> None:
    batches = list(energon_loader(frozen_set, 0, repeat=False, batch_size=8))
    assert any("" in batch.image and any(batch.image) for batch in batches)
    assert sorted(
        (plain(key), picture.size if picture else None)
        for batch in batches
        for key, picture in zip(batch.__key__, batch.image, strict=True)
    ) == sorted((sample.key, sample.image_size) for sample in ours)


@pytest.mark.parametrize("workers", [0, 2])
def test_energon_continues_from_a_saved_state(frozen_set: Path, ours: list[Seen], workers: int) -> None:
    total, before = len(ours) // 4 * 6, len(ours) // 2 + 1  # an epoch and a half, even for two workers
    whole = [raw.__key__ for raw in energon_loader(frozen_set, workers, virtual_epoch_length=total)]
    assert len(whole) == total

    stopped = energon_loader(frozen_set, workers, virtual_epoch_length=total)
    rest = iter(stopped)
    assert [raw.__key__ for raw in islice(rest, before)] == whole[:before]
    state = pickle.dumps(stopped.save_state_rank())
    assert [raw.__key__ for raw in rest] == whole[before:]  # to its end, or its workers die slowly

    resumed = energon_loader(frozen_set, workers, virtual_epoch_length=total)
    resumed.restore_state_rank(pickle.loads(state))
    assert [raw.__key__ for raw in resumed] == whole[before:]


def test_energon_cookers_get_the_parts(frozen_set: Path, ours: list[Seen]) -> None:
    from megatron.energon import CaptioningSample, Cooker, DefaultTaskEncoder, basic_sample_keys, stateless

    def cook(parts: dict[str, Any]) -> Any:  # noqa: ANN401
        return CaptioningSample(**basic_sample_keys(parts), image=parts.get("jpg"), caption=parts["json"])

    encoder = DefaultTaskEncoder()
    encoder.cookers = [Cooker(stateless(cook))]
    peer = energon_loader(frozen_set, 0, repeat=False, dataset_config="crude.yaml", task_encoder=encoder)
    assert sorted(
        (plain(raw.__key__), None if raw.image is None else (raw.image.shape[2], raw.image.shape[1])) for raw in peer
    ) == sorted((sample.key, sample.image_size) for sample in ours)


def images_last(tars: list[str], ours: list[Seen]) -> list[str]:
    """The shards, those of sources that have samples without an image first: what a file name pattern can give."""
    tags = {sample.key.rpartition("-")[0] for sample in ours if sample.image_size is None}
    return sorted(tars, key=lambda tar: Path(tar).parent.name not in tags)


def hugging_face_features() -> Any:  # noqa: ANN401
    """The columns of a set of one variant."""
    from datasets import Features, Image, Value

    text, number = Value("string"), Value("int64")
    document = {
        "boxes": [[Value("float64")]],
        "conversations": [{"from": text, "value": text}],
        "height": number,
        "image_format": text,
        "origin": {"annotation": text, "image": text, "record": number},
        "region": [Value("float64")],
        "task": text,
        "width": number,
    }
    return Features({"jpg": Image(), "json": document, "__key__": text, "__url__": text})


def plain(energon_key: str) -> str:
    """Our key of Energon's, which in older versions (7.2) has the shard in front."""
    return energon_key.rpartition("/")[2]


def energon_workers(workers: int) -> Any:  # noqa: ANN401
    from megatron.energon import WorkerConfig

    return WorkerConfig(rank=0, world_size=1, num_workers=workers)


def energon_loader(frozen_set: Path, workers: int, **settings: Any) -> Any:  # noqa: ANN401
    """A loader in training order: shards shuffled, pieces of them mixed, then a shuffle buffer."""
    from megatron.energon import get_savable_loader, get_train_dataset

    usual = {"batch_size": None, "shuffle_buffer_size": 16, "max_samples_per_sequence": 20}
    dataset = get_train_dataset(frozen_set, worker_config=energon_workers(workers), **{**usual, **settings})
    return get_savable_loader(dataset)
