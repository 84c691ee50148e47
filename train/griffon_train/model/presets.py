"""Models by name: the sizes that Griffon-G is built on, small ones that learn on a CPU, and tiny ones for trying.

A preset defines the architecture; weights are random until a checkpoint is loaded. Sizes are from the published
config.json of each model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import CLIPVisionConfig, Gemma2Config, LlamaConfig, PreTrainedConfig, Qwen2Config

from griffon_shards.support.errors import SettingsError
from griffon_train.data.images import IMAGE_PX, REGION_PX
from griffon_train.model.config import GriffonConfig

_VIT_L: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
_TINY_VIT: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
    "projection_dim": 32,
}
_BYTE_VOCABULARY = 272  # the byte-level tokenizer's 264 tokens and a few unused ones, as in released vocabularies

_TEXT_CONFIGS: Mapping[str, type[PreTrainedConfig]] = {
    "gemma2": Gemma2Config,
    "llama2": LlamaConfig,
    "qwen2": Qwen2Config,
}
FAMILIES = tuple(_TEXT_CONFIGS)
_SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # of the tokenizers made here
_SMALL_RATIO = 3  # intermediate size over width


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The architecture of a named model.

    Attributes:
        family: one of `FAMILIES`.
        text: settings of the language model's configuration.
        vision: settings of both towers' configurations.
        image_px: side of the vision tower's input.
        region_px: side of the region tower's input.
        projector: a name of `griffon_train.model.projector.PROJECTORS`.
        byte_tokens: whether the tokenizer is the byte-level one.
    """

    family: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any] = field(default_factory=lambda: _VIT_L)
    image_px: int = IMAGE_PX
    region_px: int = REGION_PX
    projector: str = "conv_reduce"
    byte_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSize:
    """The size of a small model. Widths are divisible by heads, and the image's side by the patches'.

    Attributes:
        width: hidden size of the language model.
        layers: its number of layers.
        heads: its attention heads.
        vision_width: hidden size of the vision tower.
        vision_layers: its number of layers.
        vision_heads: its attention heads.
        image_px: side of the vision tower's input.
        patch_px: side of a patch.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    vision_width: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    image_px: int = 98
    patch_px: int = 14


def _gemma2(hidden_size: int, layers: int, heads: int, key_value_heads: int, intermediate_size: int) -> Preset:
    text = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate_size,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "vocab_size": 256000,
    }
    return Preset(family="gemma2", text=text)


def _llama2(hidden_size: int, layers: int, heads: int, intermediate_size: int) -> Preset:
    text = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "vocab_size": 32000,
    }
    return Preset(family="llama2", text=text)


def _qwen2(
    hidden_size: int, layers: int, heads: int, key_value_heads: int, intermediate_size: int, vocabulary: int, tied: bool
) -> Preset:
    text = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
    }
    return Preset(family="qwen2", text=text)


def small_preset(family: str, size: SmallSize, *, vocabulary: int) -> Preset:
    """A small model of a size.

    Args:
        family: one of `FAMILIES`.
        size: of its parts.
        vocabulary: number of its tokens, of which the first three are those that pad, begin and end texts.
    """
    text = {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "intermediate_size": _SMALL_RATIO * size.width,
        "max_position_embeddings": 4096,
        "vocab_size": vocabulary,
        # What keeps the scale of what passes through; the 0.02 of real widths would silence every layer of this one.
        "initializer_range": size.width**-0.5,
        **_SPECIAL_TOKENS,
    }
    if family == "gemma2":
        head = size.width // size.heads
        text |= {"head_dim": head, "query_pre_attn_scalar": head, "sliding_window": 1024}
    vision = {
        "hidden_size": size.vision_width,
        "intermediate_size": _SMALL_RATIO * size.vision_width,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "patch_size": size.patch_px,
        "projection_dim": size.vision_width,
    }
    region_px = 2 * size.patch_px
    return Preset(
        family=family,
        text=text,
        vision=vision,
        image_px=size.image_px,
        region_px=region_px,
        projector="mlp2x_gelu",
        byte_tokens=True,
    )


def _tiny(family: str) -> Preset:
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 4096,
        "vocab_size": _BYTE_VOCABULARY,
        **_SPECIAL_TOKENS,
    }
    if family == "gemma2":
        text |= {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64}
    return Preset(family=family, text=text, vision=_TINY_VIT, image_px=70, region_px=28, byte_tokens=True)


PRESETS: Mapping[str, Preset] = {
    "gemma2-2b": _gemma2(2304, 26, 8, 4, 9216),
    "gemma2-9b": _gemma2(3584, 42, 16, 8, 14336),
    "llama2-7b": _llama2(4096, 32, 32, 11008),
    "llama2-13b": _llama2(5120, 40, 40, 13824),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-7b": _qwen2(3584, 28, 28, 4, 18944, 152064, tied=False),
    **{f"small-{family}": small_preset(family, SmallSize(), vocabulary=_BYTE_VOCABULARY) for family in FAMILIES},
    **{f"tiny-{family}": _tiny(family) for family in FAMILIES},
}

FAMILY_CHATS: Mapping[str, str] = {"gemma2": "gemma_instruct", "llama": "llama_2", "qwen2": "qwen2"}
"""The chat template that each family was released with, by `model_type` of the language model."""


def family_chat(family: str) -> str:
    """The chat template of one of `FAMILIES`."""
    return FAMILY_CHATS[_TEXT_CONFIGS[family].model_type]


def preset_config(name: str, *, region: bool = True) -> GriffonConfig:
    """Return the configuration of a preset.

    Args:
        name: one of `PRESETS`.
        region: whether the model has a region tower, for visual referring.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in PRESETS:
        raise SettingsError(
            f"unknown model {name!r}; expected one of {', '.join(PRESETS)}, or the folder of a saved model"
        )
    return config_of(PRESETS[name], region=region)


def config_of(preset: Preset, *, region: bool = True) -> GriffonConfig:
    """The configuration of a preset; `region` as for `preset_config`."""
    return GriffonConfig(
        vision_config=CLIPVisionConfig(**preset.vision, image_size=preset.image_px),
        text_config=_TEXT_CONFIGS[preset.family](**preset.text),
        region_config=CLIPVisionConfig(**preset.vision, image_size=preset.region_px) if region else None,
        projector=preset.projector,
    )
