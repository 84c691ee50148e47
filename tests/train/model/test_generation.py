"""How saved models generate: as their language model's folder says, and until the template's end of an answer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from griffon_train.config.resolve import resolve
from griffon_train.model.attention import attention_of
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.generation import generation_config
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import FAMILY_CHATS, preset_config
from griffon_train.model.saving import save_beside
from griffon_train.text.chat_templates import CHATS, end_tokens
from griffon_train.training.model_loading import load_model

from ..model_folders import language_model_folder, tower_folder
from ..small_tokenizers import byte_level, id_of
from ..text.test_vocabularies import vocabulary
from .test_griffon import FAMILIES, batch

Model = Any

ENDS = {"gemma_instruct": "<end_of_turn>", "llama_2": "</s>", "qwen2": "<|im_end|>"}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "nothing": {},
    "gemma-2-it": {"bos_token_id": 2, "eos_token_id": [1, 107], "pad_token_id": 0, "cache_implementation": "hybrid"},
    "llama-2-chat": {
        **{"bos_token_id": 1, "do_sample": True, "eos_token_id": 2, "max_length": 4096, "pad_token_id": 0},
        **{"temperature": 0.6, "top_p": 0.9},
    },
    "vicuna": {  # transformers itself refuses to save it once something is changed
        **{"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "max_length": 4096, "pad_token_id": 0},
        **{"temperature": 0.9, "top_p": 0.6},
    },
    "qwen2.5-instruct": {
        **{"bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643], "pad_token_id": 151643},
        **{"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
    },
}
"""What the `generation_config.json` of language models says, as they are published."""


def published(name: str, folder: Path) -> GenerationConfig:
    folder.mkdir()
    (folder / "generation_config.json").write_text(json.dumps(PUBLISHED[name]))
    return GenerationConfig.from_pretrained(folder)


def as_list(tokens: int | list[int] | None) -> list[int]:
    return [] if tokens is None else tokens if isinstance(tokens, list) else [tokens]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("chat", list(CHATS))
def test_the_language_models_settings_are_kept_and_the_templates_end_is_added(
    name: str, chat: str, tmp_path: Path
) -> None:
    tokenizer = byte_tokenizer()
    (tmp_path / "saved").mkdir()
    save_beside(tmp_path / "saved", preset_config("tiny-llama2"), published(name, tmp_path / "given"), chat, tokenizer)
    saved: Any = GenerationConfig.from_pretrained(tmp_path / "saved")
    given = PUBLISHED[name]
    end = id_of(ENDS.get(chat, "Ċ"), tokenizer)
    kept = as_list(given.get("eos_token_id"))
    assert saved.eos_token_id == kept + [end] * (end not in kept)
    for setting, value in given.items():
        if setting not in ("eos_token_id", "_from_model_config"):
            assert getattr(saved, setting) == value, setting
    assert saved.pad_token_id == given.get("pad_token_id", tokenizer.pad_token_id)
    assert saved.bos_token_id == given.get("bos_token_id", tokenizer.bos_token_id)
    assert not saved._from_model_config


@pytest.mark.parametrize(
    ("chat", "name", "ends"),
    [
        ("gemma_instruct", "gemma3", "<end_of_turn>"),
        ("llama_2", "llama2", "</s>"),
        ("qwen2", "qwen3", "<|im_end|>"),
    ],
)
def test_the_end_marks_of_released_vocabularies(chat: str, name: str, ends: str) -> None:
    tokenizer = vocabulary(name)
    assert end_tokens(chat, tokenizer) == [id_of(ends, tokenizer)]


@pytest.mark.parametrize(("name", "least"), [("llama2", 1), ("qwen3", 2000)])
def test_a_caption_ends_with_whatever_token_ends_its_line(name: str, least: int) -> None:
    """In some vocabularies the newline is one token with what stands before it."""
    tokenizer = vocabulary(name)
    ends = end_tokens("plain", tokenizer)
    assert len(ends) >= least
    for caption in ("A cat.", "Two (2)", "```", "", "end;", "两只猫。", "x\t", "person-[0.120,0.034,0.560,0.800]"):
        ids = tokenizer(f"{caption}\n", add_special_tokens=False)["input_ids"]
        assert ids[-1] in ends
        assert not set(ids[:-1]) & set(ends)


def test_a_stage_after_plain_does_not_stop_at_newlines() -> None:
    tokenizer = byte_tokenizer()
    newline, mark = id_of("Ċ", tokenizer), id_of("<end_of_turn>", tokenizer)
    before = GenerationConfig(eos_token_id=2, top_k=7)
    for chat, stops in (("plain", [2, newline]), ("gemma_instruct", [2, mark]), ("gemma_instruct", [2, mark])):
        before = generation_config(before, chat, tokenizer)
        assert (before.eos_token_id, before.top_k) == (stops, 7)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_new_model_has_the_settings_of_its_language_models_folder(name: str, tmp_path: Path) -> None:
    """They are saved with the model, even those that transformers would not write."""
    folder, tower = language_model_folder(tmp_path / "language", "llama2"), tower_folder(tmp_path / "tower")
    (folder / "generation_config.json").write_text(json.dumps(PUBLISHED[name]))
    given = {"stage": "custom", "shards": (tmp_path,), "output_dir": tmp_path / "run"}
    settings = resolve({**given, "model": str(folder), "vision_tower": tower}).settings
    model, tokenizer = load_model(settings, torch.float32)
    model.save_pretrained(tmp_path / "saved")
    save_beside(tmp_path / "saved", model.config, model.generation_config, "llama_2", tokenizer)
    again: Any = GriffonForConditionalGeneration.from_pretrained(tmp_path / "saved").generation_config
    for setting, value in PUBLISHED[name].items():
        if setting not in ("eos_token_id", "_from_model_config"):
            assert getattr(again, setting) == value, setting
    assert set(as_list(PUBLISHED[name].get("eos_token_id"))) <= set(again.eos_token_id)


NO_PAD = [None, -1]
"""Llama's first conversions say -1, as do Vicuna and MiniGPT-4's folders that were made of them."""


@pytest.mark.parametrize("pad", NO_PAD)
def test_without_a_pad_token_what_ends_an_answer_pads(pad: int | None) -> None:
    tokenizer = byte_level()
    assert tokenizer.pad_token_id is None
    config = generation_config(GenerationConfig(pad_token_id=pad), "qwen2", tokenizer)
    assert config.pad_token_id == id_of("<|im_end|>", tokenizer)


@pytest.mark.parametrize("pad", NO_PAD)
def test_where_the_model_names_no_pad_token_the_tokenizers_pads(pad: int | None) -> None:
    tokenizer = byte_tokenizer()
    config = generation_config(GenerationConfig(pad_token_id=pad), "qwen2", tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id == id_of("<pad>", tokenizer)


def ending(name: str, folder: Path) -> tuple[Model, int]:
    """A saved model that says its template's end mark third in its answer to an image, and that mark."""
    config: Any = preset_config(name)
    config.text_config.tie_word_embeddings = False  # the head alone is changed below
    config._attn_implementation = dict(attention_of(config.text_config))
    torch.manual_seed(1)
    model: Model = GriffonForConditionalGeneration(config)
    model.eval()
    tokenizer = byte_tokenizer()
    chat = FAMILY_CHATS[config.text_config.model_type]
    end = end_tokens(chat, tokenizer)[0]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
        output = model.generate(**image_prompt(model), **ENDLESS)[0].tolist()
        assert output[2] not in output[:2] and end not in output
        head = model.get_output_embeddings().weight
        head[[output[2], end]] = head[[end, output[2]]]
    model.save_pretrained(folder)
    save_beside(folder, model.config, model.generation_config, chat, tokenizer)
    loaded: Model = GriffonForConditionalGeneration.from_pretrained(folder)
    return loaded.eval(), end


ENDLESS: Mapping[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}


def image_prompt(model: Model) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch(model, (1,), (0,)).items() if name != "region_values"}


@pytest.mark.parametrize("name", FAMILIES)
def test_generate_stops_at_the_end_mark_alone_and_in_a_batch(name: str, tmp_path: Path) -> None:
    model, end = ending(name, tmp_path)
    pictured = image_prompt(model)
    alone = model.generate(**pictured, max_new_tokens=8, do_sample=False)[0].tolist()
    assert (len(alone), alone[-1], alone.count(end)) == (3, end, 1)
    assert model.generate(**pictured, **ENDLESS).shape == (1, 8)  # but for the end mark it would continue
    row = [1, 9, 60, 61]
    other = model.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False)[0].tolist()
    gap = pictured["input_ids"].shape[1] - len(row)
    both = {
        "input_ids": torch.cat([pictured["input_ids"], torch.tensor([[0] * gap + row])]),
        "attention_mask": torch.cat([pictured["attention_mask"], torch.tensor([[0] * gap + [1] * len(row)])]),
        "pixel_values": pictured["pixel_values"],
    }
    rows = model.generate(**both, max_new_tokens=8, do_sample=False).tolist()
    assert rows[0] == alone + [model.generation_config.pad_token_id] * (len(rows[0]) - 3)
    assert rows[1][: len(other)] == other
    assert len(other) > 3  # so that the first waited for it
