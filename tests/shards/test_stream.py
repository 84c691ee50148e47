"""The webdataset pipeline over a set: the samples that `open_set` gives, in its order, of what was asked for."""

import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import webdataset
from numpy.typing import NDArray
from PIL import Image

from griffon_shards import DataError, FrozenSet, Sample, SettingsError, open_set, shard_urls, stream
from griffon_shards.sample_json import encode_sample


def keys_of(samples: Iterable[dict[str, Any]]) -> list[str]:
    return [sample["__key__"] for sample in samples]


def keys_in(shards: FrozenSet, *tags: str) -> list[str]:
    return [shards.key(row) for tag in tags for row in shards.rows_of_source(tag)]


@pytest.fixture(scope="module")
def shards(frozen_set: Path) -> FrozenSet:
    return open_set(frozen_set)


def test_undecoded_it_gives_the_frozen_bytes_in_order(frozen_set: Path, shards: FrozenSet) -> None:
    seen = [(sample["__key__"], sample.get("jpg"), sample["json"]) for sample in stream(frozen_set, decode=None)]
    ours = [shards[row] for row in range(len(shards))]
    assert seen == [(sample.key, sample.image, encode_sample(sample)) for sample in ours]


def test_decoded_it_gives_images_and_documents_in_order(frozen_set: Path, shards: FrozenSet) -> None:
    count = 0
    for row, seen in enumerate(stream(frozen_set)):
        sample = shards[row]
        assert seen["__key__"] == sample.key
        assert seen["json"] == orjson.loads(encode_sample(sample))
        assert ("jpg" in seen) == (sample.image is not None)
        if sample.image is not None:
            with Image.open(BytesIO(sample.image)) as image:
                assert np.array_equal(np.asarray(seen["jpg"]), np.asarray(image.convert("RGB")))
        count += 1
    assert count == len(shards)


def test_other_decoders_are_those_of_webdataset(frozen_set: Path, shards: FrozenSet) -> None:
    sample = next(iter(stream(frozen_set, decode="rgb8")))
    first = shards[0]
    assert (sample["jpg"].dtype, sample["jpg"].shape) == (np.uint8, (first.height_px, first.width_px, 3))


@pytest.mark.parametrize(
    ("choice", "tags"),
    [
        ({}, ["LAZY_caption", "LAZY_text", "DET_shapes", "RANDDET_shapes", "REG_shapes", "VG_shapes", "VISJ_shapes"]),
        ({"sources": ["VG_shapes"]}, ["VG_shapes"]),
        ({"sources": ["VG_shapes", "LAZY_text"]}, ["LAZY_text", "VG_shapes"]),
        ({"sources": "LAZY_text"}, ["LAZY_text"]),
        ({"tasks": ["LAZY"]}, ["LAZY_caption", "LAZY_text"]),
        ({"tasks": {"DET", "VISJ"}}, ["DET_shapes", "VISJ_shapes"]),
        ({"tasks": "RANDDET"}, ["RANDDET_shapes"]),
        ({"tasks": ["LAZY"], "sources": ["LAZY_text", "VG_shapes"]}, ["LAZY_text"]),
    ],
)
def test_sources_and_tasks_are_chosen(
    frozen_set: Path, shards: FrozenSet, choice: dict[str, Any], tags: list[str]
) -> None:
    assert keys_of(stream(frozen_set, decode=None, **choice)) == keys_in(shards, *tags)
    urls = [str(frozen_set / shard.name) for shard in shards.lock.shards if shard.name.partition("/")[0] in tags]
    assert shard_urls(str(frozen_set), **choice) == urls


def test_one_name_is_that_source_and_no_part_of_it(
    tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path]
) -> None:
    root = write_set(tmp_path / "set", [make_sample("DET-000000000"), make_sample("DET_more-000000000")])
    assert keys_of(stream(root, decode=None, sources="DET_more")) == ["DET_more-000000000"]
    assert keys_of(stream(root, decode=None, sources="DET")) == ["DET-000000000"]


@pytest.mark.parametrize(
    "choice", [{"sources": ["VG"]}, {"tasks": ["COUNT"]}, {"sources": ["VG_shapes"], "tasks": ["DET"]}, {"sources": []}]
)
def test_choosing_nothing_is_refused(frozen_set: Path, choice: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"no shards of .* it has LAZY_caption \(LAZY\), "):
        stream(frozen_set, **choice)


def test_a_set_that_is_not_frozen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a frozen set"):
        stream(tmp_path)


def test_shuffled_it_gives_all_samples_mixed_over_the_set_the_same_for_a_seed(
    frozen_set: Path, shards: FrozenSet
) -> None:
    plain = keys_in(shards, *(source.tag for source in shards.lock.sources))
    first, again, other = (keys_of(stream(frozen_set, decode=None, shuffle=50, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other) == sorted(plain)
    in_order = sum(plain.index(after) - plain.index(before) == 1 for before, after in pairwise(first))
    assert in_order < len(plain) / 10
    # A buffer of 50 alone would give nothing from beyond the first 90 places here.
    assert any(plain.index(key) >= 90 for key in first[:40])


def test_the_shards_are_split_over_nodes(frozen_set: Path, shards: FrozenSet, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(keys_of(stream(frozen_set, decode=None)))
    assert all(parts)
    together = [key for part in parts for key in part]
    assert sorted(together) == sorted(keys_in(shards, *(source.tag for source in shards.lock.sources)))


def test_variants_come_with_their_sample(variants_set: Path) -> None:
    shards = open_set(variants_set)
    for row, seen in enumerate(stream(variants_set)):
        (variant,) = seen["json"]["variants"]
        turns = shards[row].renderings[1].turns
        assert variant["conversations"] == [{"from": turn.role, "value": turn.text} for turn in turns]


# As webdataset parses them: a fragment, a query, parameters, two URLs, other schemes, a command, its own expansions.
ODD_NAMES = ["a#b", "a?b=c", "a;b", "run::2", "s3:x", "file:x", "{0..3}", "[ab]*", "a%23b", "${WDS_X}", " a b", "a\nb"]
COMMAND = "pipe:touch ran; echo "


@pytest.mark.parametrize("name", [*ODD_NAMES, COMMAND])
@pytest.mark.parametrize("relative", [True, False])
def test_a_folder_may_have_any_name(
    tmp_path: Path,
    make_sample: Callable[..., Sample],
    write_set: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    relative: bool,
) -> None:
    root = write_set(tmp_path / name, [make_sample(f"DET-{record:09d}") for record in (2, 0, 1)])
    keys = keys_in(open_set(root), "DET")
    monkeypatch.chdir(tmp_path)
    given = name if relative else str(root)
    assert keys_of(stream(given, decode=None)) == keys
    assert sorted(keys_of(stream(given, shuffle=9))) == sorted(keys)
    try:
        urls = shard_urls(given)
    except SettingsError as error:  # never another file than the set's
        assert name in {"a#b", "a?b=c", "a\nb"}
        assert re.search(r"webdataset takes paths for URLs .* rename the set's folder", str(error))
    else:
        plain = webdataset.WebDataset(urls, shardshuffle=False)
        assert [sample["__key__"] for sample in plain] == keys
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing was run


def test_a_stream_goes_to_the_workers_of_a_loader(frozen_set: Path, shards: FrozenSet) -> None:
    """Those of a system without fork get it pickled."""
    for decode in ("rgb8", None):
        dataset = pickle.loads(pickle.dumps(stream(frozen_set, tasks=["VISJ"], decode=decode)))
        assert keys_of(dataset) == keys_in(shards, "VISJ_shapes")


def sixteen_bits() -> tuple[bytes, NDArray[np.uint8]]:
    """A grey ramp of 16 bits, as PNG, and what is seen of it in 8."""
    ramp = np.arange(0, 65536, 16).astype(np.uint16).reshape(64, 64)
    out = BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    return out.getvalue(), (ramp >> 8).astype(np.uint8)


@pytest.mark.parametrize("decode", [*webdataset.autodecode.imagespecs])
def test_every_image_handler_sees_what_training_sees(
    tmp_path: Path, make_sample: Callable[..., Sample], write_set: Callable[..., Path], decode: str
) -> None:
    """Images that both decode alike equal webdataset's own; 16-bit images have their true greys."""
    data, grey = sixteen_bits()
    plain = make_sample("DET-000000000", size_px=(64, 64))
    assert plain.image is not None
    deep = replace(make_sample("DET-000000001", size_px=(64, 64)), image=data)
    first, second = (sample["jpg"] for sample in stream(write_set(tmp_path / "set", [plain, deep]), decode=decode))
    expected = webdataset.autodecode.ImageHandler(decode)("jpg", plain.image)
    assert type(first) is type(expected)
    assert np.array_equal(np.asarray(first), np.asarray(expected))
    assert np.asarray(first).dtype == np.asarray(expected).dtype
    seen = np.asarray(second, np.float32)
    seen = seen.transpose(1, 2, 0) if decode.startswith("torch") and seen.ndim == 3 else seen
    seen = seen if decode.startswith("pil") or decode.endswith("8") else seen * 255
    assert np.array_equal(np.rint(seen[..., 0] if seen.ndim == 3 else seen), grey)


def test_another_name_for_decoding_is_refused(frozen_set: Path) -> None:
    with pytest.raises(SettingsError, match=r"decode='jpeg': give one of .*rgb8"):
        stream(frozen_set, decode="jpeg")
