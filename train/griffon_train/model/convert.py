"""Convert between the layout of released Griffon weights and ours, tensor by tensor, bit for bit."""

import io
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import GenerationConfig

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import refuse_taken, whole_folder, write_whole
from griffon_shards.support.tables import size
from griffon_train.model.clip import read_tower_config, tower_tensors
from griffon_train.model.config import GriffonConfig
from griffon_train.model.folders import Kind, recognised, result_model
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import FAMILY_CHATS
from griffon_train.model.projector import PROJECTORS
from griffon_train.model.released_layout import (
    PROJECTOR,
    REGION_TOWER,
    TOWER,
    griffon_config_of,
    has_regions,
    is_computed,
    released_config_of,
    released_name,
)
from griffon_train.model.saving import GENERATION_NAME, save_beside
from griffon_train.model.weight_files import (
    CONFIG_NAME,
    SHARD_SIZE,
    WeightFiles,
    bytes_of,
    listed,
    read_json,
    refuse_other,
    write_json,
    write_weights,
)
from griffon_train.text.tokenizer import load_tokenizer

_log = logging.getLogger(__name__)

Rename = Callable[[str], str]

_COPIED = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json"),
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_BINS = {f"<bin_{thousandths}>" for thousandths in range(1001)}


def convert_griffon(
    src: Path,
    dst: Path,
    *,
    vision_tower: Path | None = None,
    region_tower: Path | None = None,
    boxes: str | None = None,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Convert released weights to a folder that `GriffonForConditionalGeneration.from_pretrained` loads.

    Args:
        src: released weights.
        dst: the new folder; it must not exist, or be empty.
        vision_tower: a CLIP folder that states the tower's sizes, and holds its weights if `src` does not. By default
            the folder that the released configuration names, if it exists.
        region_tower: the same for the region tower; required if the released weights have one.
        boxes: one of `griffon_shards.types.BOX_STYLES`; by default `bin` if the tokenizer has its tokens, else `text`.
        shard_size: maximum size of a file, such as `5GB`.

    Raises:
        SettingsError: an input is missing, `dst` is not empty, or the weights are of another kind of model.
        DataError: tensors are missing, unexpected, or of another shape.
    """
    refuse_taken(dst)
    released = read_json(src / CONFIG_NAME)
    towers = _towers(src, released, vision_tower, region_tower)
    configs = {prefix: read_tower_config(folder) for prefix, folder in towers.items()}
    box_style = boxes or _box_style(src)
    config = griffon_config_of(released, configs[TOWER], configs.get(REGION_TOWER), box_style)
    tensors = dict(WeightFiles(src))
    for prefix, folder in towers.items():
        if not any(name.startswith(prefix) for name in tensors):
            tensors |= {prefix + name: tensor for name, tensor in tower_tensors(folder).items()}
            _log.info(f"{prefix.rstrip('.')}: not in {src}, taken from {folder}")
    renamed = _renamed(src, tensors, config, released_name, lambda name: name)
    config.architectures = [GriffonForConditionalGeneration.__name__]
    with _writing(src, dst, renamed, orjson.loads(config.to_json_string()), shard_size) as folder:
        _complete(src, folder, config)
    _log.info(f"boxes: {box_style}")


def export_griffon(
    src: Path,
    dst: Path,
    *,
    vision_tower: str | None = None,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Convert a folder of ours to the layout of released weights.

    Args:
        src: as `GriffonForConditionalGeneration.save_pretrained` or `convert_griffon` wrote it, or a run's folder.
        dst: the new folder; it must not exist, or be empty.
        vision_tower: value of `mm_vision_tower`; by default the value in the weights that `src` was converted from.
        shard_size: maximum size of a file, such as `5GB`.

    Raises:
        SettingsError: an input is missing, `dst` is not empty, or the weights are of another kind of model.
        DataError: tensors are missing, unexpected, or of another shape.
    """
    refuse_taken(dst)
    if recognised("SRC", src, (Kind.MODEL, Kind.RUN)) is Kind.RUN:
        src = result_model(src)
    config: GriffonConfig = GriffonConfig.from_pretrained(src)
    released = released_config_of(config, vision_tower)
    renamed = _renamed(src, dict(WeightFiles(src)), config, lambda name: name, released_name)
    with _writing(src, dst, renamed, released, shard_size):
        pass
    _log.info(f"mm_vision_tower: {released.get('mm_vision_tower')}")


def save_projector(model: GriffonForConditionalGeneration | Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the projector alone, in the format of the reference's `mm_projector.bin`.

    Args:
        model: the model, or its gathered state.
        path: the file; it appears under this name once it is complete.
    """
    state = model if isinstance(model, Mapping) else model.state_dict()
    tensors = {
        released_name(name): tensor.detach().cpu().contiguous().clone()
        for name, tensor in state.items()
        if name.startswith("projector.")
    }
    assert tensors, "no state of a Griffon model"
    buffer = io.BytesIO()  # torch reports a failed write as an error of its own, without the cause
    torch.save(tensors, buffer)
    write_whole(path, buffer.getvalue())


def load_projector(model: GriffonForConditionalGeneration, path: Path) -> None:
    """Load an `mm_projector.bin`, ours or the reference's, into a model. The model keeps its dtype and device.

    Raises:
        SettingsError: the file does not exist.
        DataError: it holds another type of projector, or one of another width.
    """
    if not path.is_file():
        raise SettingsError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; give an mm_projector.bin")
    key = PROJECTOR.removeprefix("model.")
    tensors = {name.rpartition(key)[2]: tensor for name, tensor in WeightFiles(path).items() if key in name}
    wanted = model.projector.state_dict()
    with torch.device("meta"):
        others = [kind for kind, make in PROJECTORS.items() if make(1, 1).state_dict().keys() == tensors.keys()]
    actual = "".join(f", but of {kind!r}" for kind in others if kind != model.config.projector)
    refuse_other(f"{path}: not the weights of a projector {model.config.projector!r}{actual}", wanted, tensors)
    model.projector.load_state_dict(tensors)


def _towers(src: Path, released: Mapping[str, Any], vision: Path | None, region: Path | None) -> dict[str, Path]:
    """Return the folder of each tower's configuration, by the prefix of the tower's tensors."""
    named = released.get("mm_vision_tower")
    if vision is None and isinstance(named, str) and Path(named).is_dir():
        vision = Path(named)
    if vision is None:
        raise SettingsError(
            f"{src}: its vision tower {named!r} is not a local folder, and config.json does not state its sizes; "
            "give --vision-tower DIR, a CLIP folder of the same sizes (griffon-train convert clip makes one)"
        )
    if not has_regions(released):
        if region is not None:
            raise SettingsError(f"--region-tower {region}: the weights in {src} have no region tower")
        return {TOWER: vision}
    if region is None:
        raise SettingsError(
            f"{src}: has a region tower, and config.json does not state its sizes; give --region-tower DIR, a CLIP "
            "folder of the same sizes (the released weights have openai/clip-vit-large-patch14)"
        )
    return {TOWER: vision, REGION_TOWER: region}


def _box_style(src: Path) -> str:
    """Return `bin` if the tokenizer's files have a token for every coordinate, else `text`."""
    tokens: set[str] = set()
    if (added := src / "added_tokens.json").is_file():
        tokens |= read_json(added).keys()
    if (settings := src / "tokenizer_config.json").is_file():
        tokens |= {token["content"] for token in read_json(settings).get("added_tokens_decoder", {}).values()}
    if (fast := src / "tokenizer.json").is_file():
        tokens |= {token["content"] for token in read_json(fast).get("added_tokens", ())}
    return "bin" if tokens >= _BINS else "text"


def _renamed(
    src: Path, tensors: dict[str, torch.Tensor], config: GriffonConfig, name_in: Rename, name_out: Rename
) -> dict[str, torch.Tensor]:
    """Rename the tensors of a model with this configuration.

    Args:
        src: folder of the tensors, for messages.
        tensors: by their names in `src`.
        config: the model's.
        name_in: maps our name of a tensor to its name in `src`.
        name_out: maps our name of a tensor to its new name.
    """
    with torch.device("meta"):
        model = GriffonForConditionalGeneration(config)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in model.all_tied_weights_keys}
    for copy, original in model.all_tied_weights_keys.items():
        duplicate, first = tensors.pop(name_in(copy), None), tensors.get(name_in(original))
        if duplicate is not None and first is not None and not torch.equal(duplicate, first):
            raise DataError(f"{src}: {name_in(copy)} differs from {name_in(original)}, but the configuration ties them")
        if duplicate is not None:
            _log.info(f"skipped, tied to {name_in(original)}: {name_in(copy)}")
    if computed := [name for name in tensors if is_computed(name)]:
        _log.info(f"skipped, computed from the configuration: {listed(computed)}")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in computed}
    wanted_in_src = {name_in(name): tensor for name, tensor in wanted.items()}
    refuse_other(f"{src}: its tensors do not match its configuration", wanted_in_src, tensors)
    return {name_out(name): tensors[name_in(name)] for name in wanted}


@contextmanager
def _writing(
    src: Path, dst: Path, tensors: dict[str, torch.Tensor], config: Mapping[str, Any], shard_size: str
) -> Iterator[Path]:
    """Write weights, configuration and copied files; yield the new folder, so that more can be added to it."""
    _log.info(f"{len(tensors):,} tensors, {size(bytes_of(tensors))}")
    with whole_folder(dst) as folder:
        write_weights(folder, tensors, shard_size)
        copied = [name for name in _COPIED if (src / name).is_file()]
        for name in copied:
            shutil.copyfile(src / name, folder / name)
        write_json(folder / CONFIG_NAME, config)
        _log.info(f"copied: {', '.join(copied) or 'nothing; there is no tokenizer next to the weights'}")
        yield folder


def _complete(src: Path, folder: Path, config: GriffonConfig) -> None:
    """Add the generation settings and the processor, if there is a tokenizer that can be loaded."""
    if not any((src / name).is_file() for name in _TOKENIZERS):
        return
    text: Any = config.text_config
    if (src / GENERATION_NAME).is_file():
        read_json(src / GENERATION_NAME)  # reports a damaged file by name
        generation = GenerationConfig.from_pretrained(src, local_files_only=True)
    else:
        generation = GenerationConfig.from_model_config(text)
    try:
        save_beside(folder, config, generation, FAMILY_CHATS[text.model_type], load_tokenizer(src))
    except SettingsError as error:
        _log.warning(f"no chat template and processor written: {error}")
