"""`wids.json` and `.nv-meta`: what wids and Megatron-Energon need to read a frozen set as it is.

wids: `ShardListDataset(f"{OUT}/wids.json", localname=str)`; without `localname` it first copies every shard.
Energon: `get_train_dataset(OUT, ...)`, or with your cookers `get_train_dataset(OUT, dataset_config="crude.yaml", ...)`.
webdataset and Hugging Face datasets are given the tars and need no file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from griffon_shards.files import write_whole

WIDS_NAME = "wids.json"
ENERGON_FOLDER = ".nv-meta"

# A field map, so that Energon's own tools and a task encoder without cookers work. `a,b` means: a, or b if there is no
# a; `image_format` is "" just where there is no picture. PIL, because Energon stacks tensors into a batch, fails when
# one of them is "", and goes on without the batch; of PIL pictures it makes a list.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerShard:
    """One shard, as other loaders have to know it.

    Attributes:
        name: its path relative to the set, with `/`.
        samples: how many samples it holds.
        has_image: whether any of them has a picture.
    """

    name: str
    samples: int
    has_image: bool


def write_peer_files(root: Path, shards: Sequence[PeerShard]) -> None:
    """Write `wids.json` and `.nv-meta` into the set in `root`. The same shards give the same bytes.

    Shards without samples are left out: Energon does not allow them.

    Sources: the docstring of `wids.wids_specs.resolve_dsdesc` (wids 0.1); Megatron-Energon's documentation, "Dataset
    Format on Disk". Energon's `index.sqlite` serves look-ups by key only, and its `index.uuid` is random: neither is
    needed to iterate, save and restore.

    Args:
        root: the folder of the set.
        shards: all its shards, in the order of its rows.
    """
    filled = [shard for shard in shards if shard.samples]
    energon = root / ENERGON_FOLDER
    energon.mkdir(exist_ok=True)
    write_whole(energon / ".info.json", _json({"shard_counts": {shard.name: shard.samples for shard in filled}}))
    write_whole(energon / "split.yaml", _split_yaml(filled).encode())
    write_whole(energon / "dataset.yaml", _DATASET_YAML.encode())
    write_whole(energon / "crude.yaml", _CRUDE_YAML.encode())
    shardlist = [{"url": shard.name, "nsamples": shard.samples} for shard in filled]
    write_whole(root / WIDS_NAME, _json({"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": shardlist}))


def _split_yaml(shards: Sequence[PeerShard]) -> str:
    """All shards are `train`; the other two are named because `energon lint` asks for them, and skips them if empty."""
    names = "".join(f"  - {shard.name}\n" for shard in shards)
    return f"split_parts:\n  train:\n{names}  val: []\n  test: []\n"


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
