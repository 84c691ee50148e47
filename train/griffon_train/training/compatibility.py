"""Checks before the first step that the settings and the tokenizer fit the model."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.config.settings import Settings, option_name
from griffon_train.model.bin_tokens import BIN_TOKENS
from griffon_train.model.griffon import GriffonForConditionalGeneration

_NAMED = 3
_EXTENDED = ("linear", "dynamic", "yarn")
"""RoPE scaling types that multiply the positions; for others, `max_position_embeddings` is the limit."""


def refuse_unfit_settings(
    model: GriffonForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, settings: Settings
) -> None:
    """Check that the settings and the tokenizer fit the model.

    Raises:
        SettingsError: they ask for something that the model does not have.
    """
    config: Any = model.config
    for name in ("projector", "select_layer"):
        given, has = getattr(settings.model, name), getattr(config, name)
        if given is not None and given != has:
            raise SettingsError(
                f"{option_name(name)} {given}: the model was made with {has} and cannot be changed; leave it out"
            )
    if settings.model.boxes == "text" and config.box_style != "text":
        raise SettingsError(
            f"--boxes text: the model writes {config.box_style} boxes, which cannot be changed back; leave it out"
        )
    layers = config.vision_config.num_hidden_layers
    if not -layers - 1 <= config.select_layer <= layers:
        raise SettingsError(
            f"--select-layer {config.select_layer}: the vision tower has {layers} layers, so its hidden states are "
            f"{-layers - 1} to {layers}"
        )
    _refuse_tokens_without_embeddings(model, tokenizer)
    positions = positions_of(config.get_text_config())
    if positions is not None and settings.data.max_length > positions:
        raise SettingsError(
            f"--max-length {settings.data.max_length} is more than the language model's {positions} positions; "
            f"give --max-length {positions} or less"
        )


def positions_of(text_config: PreTrainedConfig) -> int | None:
    """The number of positions of a language model, or None if there is no limit.

    This is `max_position_embeddings`, or with scaled RoPE the factor times the positions before scaling, if that is
    more. Configurations give `max_position_embeddings` either before scaling (Qwen2.5 with YaRN, Vicuna 16k) or after
    it (Llama 3.1, DeepSeek); both are handled. A sliding window limits attention, not positions.
    """
    positions = getattr(text_config, "max_position_embeddings", None)
    rope = getattr(text_config, "rope_parameters", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    if not isinstance(rope, Mapping) or rope.get("rope_type") not in _EXTENDED:
        return positions
    before = rope.get("original_max_position_embeddings") or positions
    return max(positions, int(before * (rope.get("factor") or 1)))


def _refuse_tokens_without_embeddings(
    model: GriffonForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    tokens: Mapping[str, int] = tokenizer.get_vocab()
    beyond = sorted((number, token) for token, number in tokens.items() if number >= rows)
    if beyond:
        some = ", ".join(f"{token!r} ({number})" for number, token in beyond[:_NAMED])
        raise SettingsError(
            f"the tokenizer has {len(beyond):,} tokens beyond the {rows:,} embeddings of the language model, such as "
            f"{some}: give the tokenizer that the model came with (--tokenizer), or first enlarge the model's "
            "embeddings with resize_token_embeddings"
        )
    if model.config.box_style == "bin" and (missing := [token for token in BIN_TOKENS if token not in tokens]):
        raise SettingsError(
            f"the model writes bin boxes, and the tokenizer lacks {len(missing):,} of their tokens, such as "
            f"{missing[0]}: give the tokenizer that the model was saved with (--tokenizer)"
        )
