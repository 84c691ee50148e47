"""The tokens of a model: those of boxes, and a tokenizer that must fit the embeddings."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.convert import convert_griffon, export_griffon
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.training.model_loading import load_model

from ..model_folders import language_model_folder, tower_folder
from .given_folders import settings


@pytest.mark.parametrize(("family", "tied"), [("gemma2", True), ("qwen2", True), ("qwen2", False), ("llama2", False)])
def test_a_language_model_that_learns_bin_boxes_can_be_saved_and_loaded(
    family: str, tied: bool, tmp_path: Path
) -> None:
    """It is loaded by the next stage, and converted to the released layout and back."""
    language_model_folder(tmp_path / "text", family, tie_word_embeddings=tied)
    tower = tower_folder(tmp_path / "tower")
    given = settings(model=str(tmp_path / "text"), vision_tower=tower, boxes="bin")
    model, tokenizer = load_model(given, torch.float32)
    rows, first = model.get_input_embeddings().weight, len(byte_tokenizer())
    assert tokenizer.convert_tokens_to_ids("<bin_0>") == first and len(rows) == first + 1001
    assert torch.allclose(rows[first], rows[:first].mean(dim=0))
    assert (model.get_output_embeddings().weight is rows) == tied
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    export_griffon(tmp_path / "saved", tmp_path / "released")
    convert_griffon(tmp_path / "released", tmp_path / "back", vision_tower=tower)
    for name in ("saved", "back"):
        again, known = load_model(settings(model=str(tmp_path / name)), torch.float32)
        assert again.config.box_style == "bin" and len(known) == len(tokenizer)
        state = again.state_dict()
        assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def with_more_tokens(count: int) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<more_{i}>" for i in range(count)])
    return tokenizer


@pytest.mark.parametrize("kind", ["language model", "saved", "preset", "tokenizer's own folder", "bin"])
def test_a_tokenizer_with_tokens_that_have_no_embedding_is_refused(kind: str, tmp_path: Path) -> None:
    """The byte-level tokenizer uses 264 of 272 embeddings, so 9 more tokens are one too many."""
    for folder, count in (("fits", 8), ("beyond", 9)):
        with_more_tokens(count).save_pretrained(tmp_path / folder)
    tower = tower_folder(tmp_path / "tower")
    text = language_model_folder(tmp_path / "text", "qwen2")
    GriffonForConditionalGeneration(preset_config("tiny-qwen2")).save_pretrained(tmp_path / "saved")
    kinds: dict[str, dict[str, object]] = {
        "language model": {"model": str(text), "vision_tower": tower},
        "saved": {"model": str(tmp_path / "saved")},
        "preset": {"model": "tiny-qwen2"},
        "tokenizer's own folder": {"model": str(text), "vision_tower": tower},
        "bin": {"model": str(text), "vision_tower": tower, "boxes": "bin"},
    }
    more = kinds[kind]
    load_model(settings(**more, tokenizer=tmp_path / "fits"), torch.float32)
    given = settings(**more, tokenizer=tmp_path / "beyond")
    if kind == "tokenizer's own folder":
        with_more_tokens(9).save_pretrained(text)
        given = settings(**more)
    with pytest.raises(
        SettingsError, match=r"1 tokens beyond the 272 embeddings .* '<more_8>' \(272\): give the token"
    ):
        load_model(given, torch.float32)


def test_a_tokenizer_without_the_tokens_of_bin_boxes_is_refused_for_a_model_that_writes_them(tmp_path: Path) -> None:
    model, tokenizer = load_model(settings(boxes="bin"), torch.float32)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    given = {"model": str(tmp_path / "saved")}
    with pytest.raises(SettingsError, match=r"lacks 1,001 of their tokens, such as <bin_0>: give the tokenizer that"):
        load_model(settings(**given, tokenizer=tmp_path / "other"), torch.float32)
    with pytest.raises(SettingsError, match="--boxes text: the model writes bin boxes"):
        load_model(settings(**given, boxes="text"), torch.float32)
