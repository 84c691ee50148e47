"""Folders of language models and of towers as their publishers ship them: written by `save_pretrained`, each alone."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
)

from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.presets import preset_config
from griffon_train.text.tokenizer import load_tokenizer

FAMILIES = ("gemma2", "llama2", "qwen2")

_TOKENIZERS = Path(__file__).parents[3] / "shared/data/tokenizers"
_REAL = {"gemma2": "gemma3", "llama2": "llama2", "qwen2": "qwen3"}
"""Real tokenizers by family; Gemma-3's and Qwen3's have the control tokens of Gemma-2's and Qwen2.5's."""


def language_model_folder(
    folder: Path, family: str, tokenizer: PreTrainedTokenizerBase | None = None, *, seed: int = 0, **more: object
) -> Path:
    """A tiny language model with its tokenizer.

    Args:
        folder: to write.
        family: one of `FAMILIES`.
        tokenizer: the byte-level one by default.
        seed: of the weights.
        **more: of the configuration, such as `tie_word_embeddings`.
    """
    tokenizer = tokenizer or byte_tokenizer()
    config: Any = deepcopy(preset_config(f"tiny-{family}").get_text_config())
    sizes = {"vocab_size": max(config.vocab_size, len(tokenizer))}
    for name, value in {**sizes, **more}.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tower_folder(folder: Path, *, whole: bool = False, seed: int = 1, **more: object) -> Path:
    """A tiny CLIP tower.

    Args:
        folder: to write.
        whole: with CLIP's text half, as OpenAI published it.
        seed: of the weights.
        **more: of the tower's configuration, such as `image_size`.
    """
    config: Any = deepcopy(preset_config("tiny-gemma2").vision_config)
    for name, value in more.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    if whole:
        text = CLIPTextConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
        )
        fields = {"vision_config": config.to_dict(), "text_config": text.to_dict(), "projection_dim": 8}
        CLIPModel(CLIPConfig(**fields)).save_pretrained(folder)
    else:
        CLIPVisionModel(config).save_pretrained(folder)
    return folder


def real_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """A family's own tokenizer; skips the test where it is not on this machine."""
    folder = _TOKENIZERS / _REAL[family]
    if not folder.is_dir():
        pytest.skip(f"no tokenizer in {folder}")
    result: PreTrainedTokenizerBase = load_tokenizer(folder)
    return result
