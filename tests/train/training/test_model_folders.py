"""Folders of models and towers as their publishers ship them: what may be missing, and what is left out."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionModelWithProjection

from griffon_shards.support.errors import SettingsError
from griffon_train.model.presets import preset_config
from griffon_train.training.model_loading import load_model

from ..model_folders import language_model_folder, tower_folder
from .given_folders import TINY, complete_folders, given_with, settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_folders(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("layer", [-9, -5, 4])
@pytest.mark.parametrize("preset", [True, False])
def test_a_hidden_state_that_the_tower_does_not_have_is_refused(layer: int, preset: bool, whole: Path) -> None:
    parts = {"model": "tiny-llama2"} if preset else {"model": str(whole / "language"), "vision_tower": whole / "tower"}
    with pytest.raises(SettingsError, match=f"--select-layer {layer}: the vision tower has 3 layers.* -4 to 3$"):
        load_model(settings(**parts, select_layer=layer), torch.float32)


def test_what_may_be_left_out_and_what_is_not_ours(tmp_path: Path) -> None:
    """A tied head, positions that older versions stored, CLIP's text half, its head, and the names of both layouts."""
    for family, tied in (("gemma2", True), ("qwen2", True), ("llama2", False)):
        language_model_folder(tmp_path / family, family, tie_word_embeddings=tied)
        tensors = load_file(tmp_path / family / "model.safetensors")
        assert ("lm_head.weight" in tensors) == (not tied)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
        save_file(tensors, tmp_path / family / "model.safetensors", {"format": "pt"})
    tower_folder(tmp_path / "vision")
    tower_folder(tmp_path / "clip", whole=True)
    tensors = load_file(tmp_path / "clip/model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(26)[None]
    save_file(tensors, tmp_path / "clip/model.safetensors", {"format": "pt"})
    torch.manual_seed(1)
    config: Any = preset_config("tiny-gemma2").vision_config
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "headed")
    plain = load_file(tmp_path / "vision/model.safetensors")
    torch.save({f"vision_model.{n.removeprefix('vision_model.')}": t for n, t in plain.items()}, tmp_path / "old.bin")
    shutil.copytree(tmp_path / "vision", tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").unlink()
    (tmp_path / "old.bin").rename(tmp_path / "pickled/pytorch_model.bin")
    for family, tower in (("gemma2", "clip"), ("qwen2", "headed"), ("llama2", "vision"), ("llama2", "pickled")):
        given = settings(model=str(tmp_path / family), vision_tower=tmp_path / tower)
        model, _ = load_model(given, torch.float32)
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
        if tower == "pickled":
            pickled_state = model.vision_tower.state_dict()
            assert all(torch.equal(t, pickled_state[n.removeprefix("vision_model.")]) for n, t in plain.items())


def test_the_tower_is_that_of_the_clip_model(whole: Path, tmp_path: Path) -> None:
    text = CLIPTextConfig(**{**TINY, "hidden_size": 16}, vocab_size=64)
    vision: Any = preset_config("tiny-gemma2").vision_config
    clip = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    clip.save_pretrained(tmp_path / "clip")
    given = settings(model=str(whole / "language"), vision_tower=tmp_path / "clip", region_tower=tmp_path / "clip")
    model, _ = load_model(given, torch.float32)
    pixels = torch.rand(1, 3, 70, 70)
    expected = clip.eval().vision_model(pixels).last_hidden_state
    for tower in (model.vision_tower, model.region_tower):
        assert tower is not None
        assert torch.allclose(tower.eval()(pixels).last_hidden_state, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["language", "saved"])
def test_a_model_without_a_tokenizer_asks_for_one(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / name, tmp_path / "given", ignore=shutil.ignore_patterns("token*", "special*"))
    option = "--model" if name == "language" else "--model "
    with pytest.raises(SettingsError, match="given: has no tokenizer; give --tokenizer FOLDER"):
        load_model(given_with(option, tmp_path / "given", whole), torch.float32)
