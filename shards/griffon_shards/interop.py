"""Files that let wids, Megatron-Energon and Hugging Face datasets read a frozen set directly.

wids: `ShardListDataset(f"{OUT}/wids.json", localname=str)`; without `localname` it first copies every shard.
Energon: `get_train_dataset(OUT, ...)`, or with your cookers `get_train_dataset(OUT, dataset_config="crude.yaml", ...)`.
Hugging Face: `load_dataset(OUT)`. webdataset reads the tars and needs no extra file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import orjson

from griffon_shards.support.files import write_whole

WIDS_NAME = "wids.json"
ENERGON_FOLDER = ".nv-meta"
HUGGING_FACE_NAME = ".huggingface.yaml"

# A field map, so that Energon's own tools and a task encoder without cookers work. `a,b` means: a, or b if there is no
# a; `image_format` is "" exactly if there is no image. PIL, because Energon stacks tensors into a batch, fails if one
# of them is "", and skips the batch; PIL images become a list.
_DATASET_YAML = """\
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

_CRUDE_YAML = """\
# For task encoders with cookers, which get the parts `json` and, where there is a picture, `jpg`.
__module__: megatron.energon
__class__: CrudeWebdataset
"""

# `load_dataset(OUT)` takes columns and files from here. Without it, it guesses the columns from the first five samples
# of the first shard, silently loses all images if these have none, and reads `.tar.idx` as a tar.
_HUGGING_FACE_YAML = """\
configs:
- config_name: default
  data_files: "*/*.tar"
dataset_info:
  features:
  - {name: jpg, dtype: image}
  - name: json
    struct:
    - {name: boxes, list: {list: float64}}
    - {name: conversations, list: [{name: from, dtype: string}, {name: value, dtype: string}]}
    - {name: height, dtype: int64}
    - {name: image_format, dtype: string}
    - {name: origin, struct: [{name: annotation, dtype: string}, {name: record, dtype: int64}]}
    - {name: region, list: float64}
    - {name: task, dtype: string}
    - name: variants
      list:
      - {name: boxes, list: {list: float64}}
      - {name: conversations, list: [{name: from, dtype: string}, {name: value, dtype: string}]}
      - {name: region, list: float64}
    - {name: width, dtype: int64}
  - {name: __key__, dtype: string}
  - {name: __url__, dtype: string}
"""

_ORIGIN = "struct: [{name: annotation, dtype: string}, "
_IMAGE_PATH = "{name: image, dtype: string}, "


def peer_files(shards: Mapping[str, int], *, has_boxes: bool = True, has_image_paths: bool = True) -> dict[str, bytes]:
    """The content of these files, by path relative to the set. The same shards give the same bytes.

    Shards without samples are left out, because Energon does not allow them.

    Sources: the docstring of `wids.wids_specs.resolve_dsdesc` (wids 0.1); Megatron-Energon's documentation, "Dataset
    Format on Disk". Energon's `index.sqlite` serves look-ups by key only, and its `index.uuid` is random: neither is
    needed to iterate, save and restore.

    Args:
        shards: number of samples of each shard, by its path relative to the set, in the set's order.
        has_boxes: whether the samples have the field `boxes`, as they have since `lock.FIRST_WITH_BOXES`.
        has_image_paths: whether `origin` has the field `image`, as it has since `lock.FIRST_WITH_IMAGE_PATHS`.
    """
    columns = "".join(
        line for line in _HUGGING_FACE_YAML.splitlines(keepends=True) if has_boxes or "name: boxes," not in line
    )
    if has_image_paths:
        columns = columns.replace(_ORIGIN, _ORIGIN + _IMAGE_PATH)
    filled = {name: samples for name, samples in shards.items() if samples}
    shardlist = [{"url": name, "nsamples": samples} for name, samples in filled.items()]
    return {
        f"{ENERGON_FOLDER}/.info.json": _json({"shard_counts": filled}),
        f"{ENERGON_FOLDER}/split.yaml": _split_yaml(filled).encode(),
        f"{ENERGON_FOLDER}/dataset.yaml": _DATASET_YAML.encode(),
        f"{ENERGON_FOLDER}/crude.yaml": _CRUDE_YAML.encode(),
        HUGGING_FACE_NAME: columns.encode(),
        WIDS_NAME: _json({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shardlist}),
    }


def write_peer_files(
    root: Path, shards: Mapping[str, int], *, has_boxes: bool = True, has_image_paths: bool = True
) -> list[str]:
    """Write `peer_files` into the set in `root`; returns their names."""
    (root / ENERGON_FOLDER).mkdir(exist_ok=True)
    contents = peer_files(shards, has_boxes=has_boxes, has_image_paths=has_image_paths)
    for name, content in contents.items():
        write_whole(root / name, content)
    return list(contents)


def _split_yaml(shards: Iterable[str]) -> str:
    """All shards are `train`. `energon lint` requires the other two splits, and skips them if they are empty."""
    names = "".join(f"  - {name}\n" for name in shards)
    return f"split_parts:\n  train:\n{names}  val: []\n  test: []\n"


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
