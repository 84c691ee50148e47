"""Select the attention implementation of each part: the fastest that computes what the part was trained with."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import ATTENTIONS

_SUPPORTS = {"sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn"}
"""Attributes by which a transformers class declares support, by implementation."""


def attention_of(
    text_config: PreTrainedConfig, requested: str = "auto", language_model: PreTrainedModel | None = None
) -> Mapping[str, str]:
    """Return the implementation for each sub-configuration, as `from_pretrained(attn_implementation=...)` takes it.

    Gemma-2 soft-caps its attention scores. `sdpa` does not support that; all others do. `auto` never selects
    `flex_attention`: it compiles for a minute, gains next to nothing, and its logits in bfloat16 differ from eager's.

    Args:
        text_config: the language model's.
        requested: one of `ATTENTIONS`.
        language_model: the model, if it exists already; `auto` selects only what its class supports.

    Raises:
        SettingsError: the language model does not support it, or flash-attention is not available.
    """
    flash = torch.cuda.is_available() and is_flash_attn_2_available()
    capped = getattr(text_config, "attn_logit_softcapping", None) is not None
    if requested not in ATTENTIONS:
        raise SettingsError(f"attention {requested!r}: expected one of {', '.join(ATTENTIONS)}")
    if requested == "sdpa" and capped:
        raise SettingsError(
            f"attention sdpa: {text_config.model_type} caps attention scores, which sdpa would silently ignore; "
            "use auto, eager, flex_attention or flash_attention_2"
        )
    if requested == "flash_attention_2" and not flash:
        raise SettingsError(
            "attention flash_attention_2: needs a CUDA device and flash-attn (pip install 'griffon-pipeline[flash]')"
        )
    best = "flash_attention_2" if flash else "sdpa"
    supported = language_model is None or getattr(language_model, _SUPPORTS[best])
    fastest = "eager" if (capped and not flash) or not supported else best
    text = fastest if requested == "auto" else requested
    towers = "sdpa" if requested == "flex_attention" else best if requested == "auto" else requested
    return {"text_config": text, "vision_config": towers, "region_config": towers}
