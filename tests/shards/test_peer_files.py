"""Files for other loaders: fixed bytes, made from the list of shards alone."""

from pathlib import Path

import orjson

from griffon_shards.interop import write_peer_files

SHARDS = {
    "DET_0/DET_0-000000.tar": 40,
    "DET_0/DET_0-000001.tar": 0,
    "LAZY_0/LAZY_0-000000.tar": 7,
}
SPLIT_YAML = """\
split_parts:
  train:
  - DET_0/DET_0-000000.tar
  - LAZY_0/LAZY_0-000000.tar
  val: []
  test: []
"""
DATASET_YAML = """\
# image: a PIL picture, or "" in a sample without one. caption: the whole of KEY.json.
sample_type:
  __module__: megatron.energon
  __class__: CaptioningSample
field_map:
  image: jpg,json[image_format]
  caption: json
decoder:
  __module__: megatron.energon
  __class__: SampleDecoder
  image_decode: pil
"""


def test_every_shard_that_has_samples_is_listed_in_order(tmp_path: Path) -> None:
    write_peer_files(tmp_path, SHARDS)
    assert orjson.loads((tmp_path / "wids.json").read_bytes()) == {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": [
            {"url": "DET_0/DET_0-000000.tar", "nsamples": 40},
            {"url": "LAZY_0/LAZY_0-000000.tar", "nsamples": 7},
        ],
    }
    counts = orjson.loads((tmp_path / ".nv-meta/.info.json").read_bytes())["shard_counts"]
    assert list(counts.items()) == [("DET_0/DET_0-000000.tar", 40), ("LAZY_0/LAZY_0-000000.tar", 7)]
    assert (tmp_path / ".nv-meta/split.yaml").read_text() == SPLIT_YAML
    assert (tmp_path / ".nv-meta/dataset.yaml").read_text() == DATASET_YAML


def test_the_same_shards_give_the_same_bytes_anywhere_and_again(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other place"
    for root in (one, other, one):
        root.mkdir(exist_ok=True)
        write_peer_files(root, SHARDS)
    names = {
        ".huggingface.yaml",
        ".nv-meta/.info.json",
        ".nv-meta/crude.yaml",
        ".nv-meta/dataset.yaml",
        ".nv-meta/split.yaml",
        "wids.json",
    }
    assert contents(one) == contents(other)
    assert set(contents(one)) == names


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
