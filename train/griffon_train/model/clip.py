"""CLIP towers: read from CLIP checkpoints, and resized for images of another size."""

import logging
import math
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import refuse_taken, whole_folder
from griffon_train.model.parts import making_model
from griffon_train.model.released_layout import is_computed
from griffon_train.model.weight_files import (
    CONFIG_NAME,
    WeightFiles,
    read_json,
    refuse_other,
    write_json,
    write_weights,
)

_log = logging.getLogger(__name__)

_PREFIX = "vision_model."
"""As transformers 4 names what transformers 5 names without it; 5 reads both."""
_POSITIONS = "embeddings.position_embedding.weight"
_PREPROCESSOR_NAME = "preprocessor_config.json"


def read_tower_config(folder: Path) -> CLIPVisionConfig:
    """The tower's configuration out of a CLIPModel's or CLIPVisionModel's folder.

    Raises:
        SettingsError: it is another's, or of a tower that cannot see our pictures.
        DataError: it is no JSON.
    """
    fields = read_json(folder / CONFIG_NAME)
    kind = fields.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise SettingsError(f"{folder}: a model of type {kind!r}; expected CLIP's, 'clip' or 'clip_vision_model'")
    vision = fields if kind == "clip_vision_model" else fields.get("vision_config")
    if not isinstance(vision, dict):
        raise SettingsError(f"{folder / CONFIG_NAME}: no vision_config; download it again, from where the weights are")
    with making_model(folder):
        config = CLIPVisionConfig(
            **{name: value for name, value in vision.items() if name not in ("model_type", "_name_or_path")}
        )
    image_px, patch_px, channels = (getattr(config, name) for name in ("image_size", "patch_size", "num_channels"))
    if channels != 3 or not isinstance(image_px, int) or not isinstance(patch_px, int):
        raise SettingsError(
            f"{folder}: a tower for {image_px} px, patches of {patch_px} px and {channels} channels; expected one for "
            "square images of 3 channels"
        )
    if patch_px < 1 or image_px < patch_px or image_px % patch_px:
        raise SettingsError(
            f"{folder}: images of {image_px} px are not a multiple of the patch size {patch_px} px; make a tower for "
            "another size with `griffon-train convert clip`"
        )
    return config


def tower_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tower's tensors by the names they have in a `CLIPVisionModel` of transformers 5.

    Raises:
        SettingsError: there are no weights.
        DataError: they are damaged.
    """
    found = WeightFiles(folder)
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in found) else ""
    tensors = {name.removeprefix(prefix): found[name] for name in found if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not is_computed(name)}


def load_tower(folder: Path, dtype: torch.dtype) -> CLIPVisionModel:
    """The tower of a CLIPModel's or CLIPVisionModel's folder, whole.

    Raises:
        SettingsError: it is no CLIP tower, or there are no weights.
        DataError: the weights are damaged, or not those of the configuration.
    """
    config = read_tower_config(folder)
    tensors = _whole_tower(folder, config)
    tower: CLIPVisionModel = CLIPVisionModel.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)
    return tower


def _whole_tower(folder: Path, config: CLIPVisionConfig) -> dict[str, torch.Tensor]:
    tensors = tower_tensors(folder)
    with making_model(folder), torch.device("meta"):
        wanted = CLIPVisionModel(config).state_dict()
    refuse_other(f"{folder}: its tensors do not match its configuration", wanted, tensors)
    return tensors


def convert_clip(src: Path, dst: Path, *, image_px: int) -> None:
    """Make a tower for pictures of another size: its position embeddings are interpolated, all else stays.

    Args:
        src: folder of a CLIPModel or CLIPVisionModel.
        dst: does not exist, or is empty.
        image_px: side of the pictures, a multiple of the patches'.

    Raises:
        SettingsError: `image_px` is no multiple, or folders are missing or taken.
        DataError: the weights are not those of the configuration.
    """
    refuse_taken(dst)
    config: Any = read_tower_config(src)
    patch_px, old_px = config.patch_size, config.image_size
    if image_px % patch_px:
        below, above = image_px // patch_px * patch_px, -(-image_px // patch_px) * patch_px
        nearest = f"{below} and {above}" if below else str(above)
        raise SettingsError(f"--image-size {image_px}: not a multiple of the patch size {patch_px}; nearest: {nearest}")
    tensors = _whole_tower(src, config)
    side, old_side = image_px // patch_px, old_px // patch_px
    tensors[_POSITIONS] = resized_positions(tensors[_POSITIONS], side)
    config.image_size = image_px
    config.architectures = [CLIPVisionModel.__name__]
    preprocessor = src / _PREPROCESSOR_NAME
    settings = read_json(preprocessor) if preprocessor.is_file() else {}
    with whole_folder(dst) as folder:
        write_weights(folder, {_PREFIX + name: tensor for name, tensor in tensors.items()})
        write_json(folder / _PREPROCESSOR_NAME, _preprocessor(settings, image_px))
        write_json(folder / CONFIG_NAME, orjson.loads(config.to_json_string()))
    _log.info(
        f"{old_px} px to {image_px} px: {old_side} x {old_side} to {side} x {side} positions and that of the class"
    )


def resized_positions(positions_NC: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings of a grid with another number of patches a side; that of the class, the first, stays.

    Bicubic, in float32, corners not aligned; the dtype stays.
    """
    grid_NC = positions_NC[1:]
    old_side = math.isqrt(len(grid_NC))
    if side == old_side:
        return positions_NC
    grid_1CHW = grid_NC.float().T.reshape(1, -1, old_side, old_side)
    new_1CHW = torch.nn.functional.interpolate(grid_1CHW, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions_NC[:1], new_1CHW[0].flatten(1).T.to(positions_NC.dtype)])


def _preprocessor(settings: dict[str, Any], image_px: int) -> dict[str, Any]:
    """The settings with another size; CLIP's own where there are none."""
    clip: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_std": OPENAI_CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": image_px},
        "crop_size": {"height": image_px, "width": image_px},
    }
    settings = settings or clip
    sizes = {name: settings.get(name, clip[name]) for name in ("size", "crop_size")}
    return settings | {
        name: dict.fromkeys(value, image_px) if isinstance(value, dict) else image_px for name, value in sizes.items()
    }
