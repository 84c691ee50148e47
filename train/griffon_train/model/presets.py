"""Models by name: the sizes that Griffon-G is built on, and tiny ones that run on a CPU in a second.

A preset defines the architecture; weights are random until a checkpoint is loaded. Sizes are from the published
config.json of each model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
_TINY_IMAGE_PX, _TINY_REGION_PX = 70, 28
_TINY_VOCABULARY = 272  # the byte-level tokenizer's 264 tokens and a few unused ones, as in released vocabularies

_TEXT_CONFIGS: Mapping[str, type[PreTrainedConfig]] = {
    "gemma2": Gemma2Config,
    "llama2": LlamaConfig,
    "qwen2": Qwen2Config,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The architecture of a named model.

    Attributes:
        family: `gemma2`, `llama2` or `qwen2`.
        text: settings of the language model's configuration.
        tiny: whether the towers are tiny as well, and the tokenizer is the byte-level one.
    """

    family: str
    text: Mapping[str, Any]
    tiny: bool = False


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


def _tiny(family: str) -> Preset:
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": 4096,
        "vocab_size": _TINY_VOCABULARY,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family == "gemma2":
        text |= {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64}
    return Preset(family=family, text=text, tiny=True)


PRESETS: Mapping[str, Preset] = {
    "gemma2-2b": _gemma2(2304, 26, 8, 4, 9216),
    "gemma2-9b": _gemma2(3584, 42, 16, 8, 14336),
    "llama2-7b": _llama2(4096, 32, 32, 11008),
    "llama2-13b": _llama2(5120, 40, 40, 13824),
    "qwen2.5-3b": _qwen2(2048, 36, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-7b": _qwen2(3584, 28, 28, 4, 18944, 152064, tied=False),
    "tiny-gemma2": _tiny("gemma2"),
    "tiny-llama2": _tiny("llama2"),
    "tiny-qwen2": _tiny("qwen2"),
}

FAMILY_CHATS: Mapping[str, str] = {"gemma2": "gemma_instruct", "llama": "llama_2", "qwen2": "qwen2"}
"""The chat template that each family was released with, by `model_type` of the language model."""


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
    preset = PRESETS[name]
    tower = _TINY_VIT if preset.tiny else _VIT_L
    image_px, region_px = (_TINY_IMAGE_PX, _TINY_REGION_PX) if preset.tiny else (IMAGE_PX, REGION_PX)
    return GriffonConfig(
        vision_config=CLIPVisionConfig(**tower, image_size=image_px),
        text_config=_TEXT_CONFIGS[preset.family](**preset.text),
        region_config=CLIPVisionConfig(**tower, image_size=region_px) if region else None,
    )
