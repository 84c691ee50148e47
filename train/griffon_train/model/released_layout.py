"""The layout of released Griffon weights: the names of tensors and settings there and in our models.

The names are from the reference code (github.com/jefferyZhan/Griffon, `griffon/model`). Its configuration is flat: the
language model's fields and LLaVA's in one object.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig

from griffon_shards.support.errors import SettingsError
from griffon_train.model.config import GriffonConfig
from griffon_train.model.projector import PROJECTORS

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
REGION_TOWER = "model.prompt_visual_encoder.vision_model."
_PREFIXES = (  # released and ours; the first match counts
    (TOWER, "vision_tower."),
    (PROJECTOR, "projector."),
    (REGION_TOWER, "region_tower."),
    ("model.prompt_projector.", "region_projector."),
    ("", "language_model."),
)
_FAMILIES = {  # the text configuration's type and the reference's class, by released type
    "gemma2_Griffon": ("gemma2", "GriffonGemma2ForCausalLM"),
    "qwen2_Griffon": ("qwen2", "GriffonQwen25ForCausalLM"),
    "llama2_Griffon": ("llama", "GriffonLlama2ForCausalLM"),
}
_COMPUTED = re.compile(r"(^|\.)(embeddings\.position_ids|rotary_emb\.inv_freq)$")
_NOT_TEXT = {
    *("architectures", "auto_map", "model_type", "transformers_version"),
    *("freeze_mm_mlp_adapter", "image_aspect_ratio", "image_grid_pinpoints", "tokenizer_model_max_length"),
    *("tokenizer_padding_side", "tune_mm_mlp_adapter", "unshared_visual_encoder", "use_mm_proj"),
}
_IRRELEVANT = {"architectures", "dtype", "model_type", "transformers_version"}


def released_name(name: str) -> str:
    """Return the name of one of our tensors in released weights."""
    return next(theirs + name.removeprefix(ours) for theirs, ours in _PREFIXES if name.startswith(ours))


def is_computed(name: str) -> bool:
    """Return whether a tensor follows from the configuration; old versions of transformers saved such tensors."""
    return _COMPUTED.search(name) is not None


def has_regions(released: Mapping[str, Any]) -> bool:
    """Return whether released weights have a region tower."""
    return bool(released.get("unshared_visual_encoder", False))


def text_config_of(released: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the language model's configuration.

    Raises:
        SettingsError: the model type is unknown.
    """
    family = released.get("model_type")
    if family not in _FAMILIES:
        raise SettingsError(f"model_type {family!r}: expected one of {', '.join(_FAMILIES)}, as released weights have")
    fields = {
        name: value for name, value in released.items() if name not in _NOT_TEXT and not name.startswith(("mm_", "_"))
    }
    config: PreTrainedConfig = AutoConfig.for_model(_FAMILIES[family][0], **fields)
    return config


def griffon_config_of(
    released: Mapping[str, Any], vision: CLIPVisionConfig, region: CLIPVisionConfig | None, box_style: str
) -> GriffonConfig:
    """Return our configuration for released weights; it keeps the released configuration as a field.

    Raises:
        SettingsError: it has a setting that our model does not support.
    """
    projector = released.get("mm_projector_type", "linear")
    if projector not in PROJECTORS:
        raise SettingsError(f"mm_projector_type {projector!r}: expected one of {', '.join(PROJECTORS)}")
    if (feature := released.get("mm_vision_select_feature", "patch")) != "patch":
        raise SettingsError(f"mm_vision_select_feature {feature!r}: expected 'patch'")
    return GriffonConfig(
        vision_config=vision,
        text_config=text_config_of(released),
        region_config=region,
        projector=projector,
        select_layer=released.get("mm_vision_select_layer", -2),
        box_style=box_style,
        dtype=released.get("torch_dtype", released.get("dtype")),
        released_config=dict(released),
    )


def released_config_of(config: GriffonConfig, vision_tower: str | None) -> dict[str, Any]:
    """Return the released configuration: the one that was kept, updated, or a new one if none was kept.

    Args:
        config: ours.
        vision_tower: the new value of `mm_vision_tower`; None keeps the current one.

    Raises:
        SettingsError: no released weights have such a language model.
    """
    text: Any = config.text_config
    vision: Any = config.vision_config
    kept = config.released_config
    released = dict(kept) if kept is not None else _new_fields(text.model_type, vision)
    before = _text_fields(text_config_of(released)) if kept is not None else {}
    now = _text_fields(text)
    released |= _for_transformers_4({name: now[name] for name in now if now[name] != before.get(name, ...)})
    connecting = {
        "mm_projector_type": (config.projector, "linear"),
        "mm_vision_select_layer": (config.select_layer, -2),
        "mm_hidden_size": (vision.hidden_size, None),
        "unshared_visual_encoder": (config.region_config is not None, False),
    }
    released |= {name: value for name, (value, default) in connecting.items() if released.get(name, default) != value}
    dtype = str(config.dtype).removeprefix("torch.")
    if config.dtype is not None and released.get("torch_dtype", released.get("dtype")) != dtype:
        released |= {"torch_dtype": dtype}
    return released | ({"mm_vision_tower": vision_tower} if vision_tower is not None else {})


def _text_fields(text: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields as JSON holds them, without those that say nothing about the model."""
    fields = orjson.loads(orjson.dumps(text.to_dict(), default=str, option=orjson.OPT_NON_STR_KEYS))
    return {
        name: value for name, value in fields.items() if name not in _IRRELEVANT and not name.startswith(("mm_", "_"))
    }


def _for_transformers_4(fields: dict[str, Any]) -> dict[str, Any]:
    """Replace `rope_parameters` by the two fields of the reference's version of transformers."""
    if "rope_parameters" not in fields:
        return fields
    rope = dict(fields.pop("rope_parameters"))
    scaled = rope.get("rope_type", "default") != "default"
    return fields | {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope if scaled else None}


def _new_fields(text_type: str, vision: CLIPVisionConfig) -> dict[str, Any]:
    """Return the fields of a released configuration that ours lacks, for a model that was never released."""
    families = {text: (family, name) for family, (text, name) in _FAMILIES.items()}
    if text_type not in families:
        raise SettingsError(
            f"a language model of type {text_type!r}: expected one of {', '.join(families)}, as in the released layout"
        )
    family, class_name = families[text_type]
    return {
        "model_type": family,
        "architectures": [class_name],
        "mm_vision_tower": f"checkpoints/clip-vit-large-patch{vision.patch_size}-{vision.image_size}",
        "mm_projector_type": None,
        "mm_vision_select_layer": None,
        "mm_vision_select_feature": "patch",
        "unshared_visual_encoder": None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
    }
