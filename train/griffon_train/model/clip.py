"""CLIP towers: load them from CLIP checkpoints, and resize them for images of another size."""

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
from griffon_train.model.parts import making_model, state_dtype
from griffon_train.model.released_layout import is_computed
from griffon_train.model.weight_files import (
    CONFIG_NAME,
    WeightFiles,
    note_mapped,
    read_json,
    refuse_other,
    stored_dtype,
    write_json,
    write_weights,
)

_log = logging.getLogger(__name__)

_PREFIX = "vision_model."
"""Prefix of tensor names in transformers 4; transformers 5 has none, and reads both."""
_POSITIONS = "embeddings.position_embedding.weight"
_PREPROCESSOR_NAME = "preprocessor_config.json"


def read_tower_config(folder: Path) -> CLIPVisionConfig:
    """Read the tower's configuration from the folder of a CLIPModel or CLIPVisionModel.

    Raises:
        SettingsError: the model is not CLIP, or its tower does not take square RGB images.
        DataError: the file is not valid JSON.
    """
    fields = read_json(folder / CONFIG_NAME)
    kind = fields.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise SettingsError(f"{folder}: a model of type {kind!r}; expected a CLIP model, 'clip' or 'clip_vision_model'")
    vision = fields if kind == "clip_vision_model" else fields.get("vision_config")
    if not isinstance(vision, dict):
        raise SettingsError(
            f"{folder / CONFIG_NAME}: no vision_config; download it again from the source of the weights"
        )
    with making_model(folder):
        config = CLIPVisionConfig(
            **{name: value for name, value in vision.items() if name not in ("model_type", "_name_or_path")}
        )
    image_px, patch_px, channels = (getattr(config, name) for name in ("image_size", "patch_size", "num_channels"))
    if channels != 3 or not isinstance(image_px, int) or not isinstance(patch_px, int):
        raise SettingsError(
            f"{folder}: a tower for images of {image_px} px with {channels} channels, patches of {patch_px} px; "
            "expected one for square images with 3 channels"
        )
    if patch_px < 1 or image_px < patch_px or image_px % patch_px:
        raise SettingsError(
            f"{folder}: image size {image_px} px is not a multiple of patch size {patch_px} px; make a tower for "
            "another image size with `griffon-train convert clip`"
        )
    return config


def tower_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tower's tensors, named as in a `CLIPVisionModel` of transformers 5.

    Raises:
        SettingsError: the folder has no weights.
        DataError: the weights are damaged.
    """
    weights = WeightFiles(folder)
    prefix = _PREFIX if any(name.startswith(_PREFIX) for name in weights) else ""
    tensors = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not is_computed(name)}


def load_tower(folder: Path, dtype: torch.dtype, *, as_stored: bool = False) -> CLIPVisionModel:
    """Load the tower of a CLIPModel or CLIPVisionModel, and check that no weight is missing.

    `dtype` and `as_stored` are as for `griffon_train.model.parts.load_whole`.

    Raises:
        SettingsError: the folder has no CLIP tower, or no weights.
        DataError: the weights are damaged, or do not match the configuration.
    """
    config = read_tower_config(folder)
    tensors = _whole_tower(folder, config)
    held = stored_dtype(tensors, dtype) if as_stored else dtype
    tower: CLIPVisionModel = CLIPVisionModel.from_pretrained(None, config=config, state_dict=tensors, dtype=held)
    note_mapped(tower.parameters())
    state_dtype(tower.config, dtype)
    return tower


def _whole_tower(folder: Path, config: CLIPVisionConfig) -> dict[str, torch.Tensor]:
    tensors = tower_tensors(folder)
    with making_model(folder), torch.device("meta"):
        wanted = CLIPVisionModel(config).state_dict()
    refuse_other(f"{folder}: its tensors do not match its configuration", wanted, tensors)
    return tensors


def convert_clip(src: Path, dst: Path, *, image_px: int) -> None:
    """Make a tower for images of another size: position embeddings are interpolated, all other weights are kept.

    Args:
        src: folder of a CLIPModel or CLIPVisionModel.
        dst: the new folder; it must not exist, or be empty.
        image_px: side of the images, a multiple of the patch size.

    Raises:
        SettingsError: `image_px` is not a multiple of the patch size, `src` is missing, or `dst` is not empty.
        DataError: the weights do not match the configuration.
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
    """Interpolate position embeddings to a grid of another size. The first, of the class token, is kept.

    Interpolation is bicubic, in float32, without aligned corners. The result has the dtype of the input.
    """
    grid_NC = positions_NC[1:]
    old_side = math.isqrt(len(grid_NC))
    if side == old_side:
        return positions_NC
    grid_1CHW = grid_NC.float().T.reshape(1, -1, old_side, old_side)
    new_1CHW = torch.nn.functional.interpolate(grid_1CHW, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions_NC[:1], new_1CHW[0].flatten(1).T.to(positions_NC.dtype)])


def _preprocessor(settings: dict[str, Any], image_px: int) -> dict[str, Any]:
    """Return preprocessor settings with another image size; CLIP's own if there are none."""
    defaults: dict[str, Any] = {
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
    settings = settings or defaults
    sizes = {name: settings.get(name, defaults[name]) for name in ("size", "crop_size")}
    return settings | {
        name: dict.fromkeys(value, image_px) if isinstance(value, dict) else image_px for name, value in sizes.items()
    }
