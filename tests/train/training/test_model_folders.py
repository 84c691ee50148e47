"""Folders that are given as a model or a tower: of another kind, or as their publishers ship them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5ForConditionalGeneration,
)

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.model.presets import preset_config
from griffon_train.training.model_loading import load_model

from ..model_folders import language_model_folder, tower_folder
from .given_folders import TINY, complete_folders, edited, given_with, settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete_folders(tmp_path_factory.mktemp("whole"))


def siglip(folder: Path) -> None:
    SiglipVisionModel(SiglipVisionConfig(**TINY, image_size=70, patch_size=14)).save_pretrained(folder)


def whole_clip(folder: Path) -> None:
    tower_folder(folder, whole=True)


def llava(folder: Path) -> None:
    """transformers' layout."""
    text = LlamaConfig(**TINY, vocab_size=272)
    text._name_or_path = "lmsys/vicuna-7b-v1.5"
    config = LlavaConfig(text_config=text, vision_config=CLIPVisionConfig(**TINY, image_size=70, patch_size=14))
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    edited(
        text_config={**orjson.loads((folder / "config.json").read_bytes())["text_config"], "_name_or_path": "vicuna"}
    )(folder)


def original_llava(model_type: str) -> Callable[[Path], None]:
    """Write a folder as LLaVA's own code does: a flat configuration that names the tower."""

    def make(folder: Path) -> None:
        language_model_folder(folder, "llama2")
        edited(
            model_type=model_type,
            architectures=["LlavaLlamaForCausalLM"],
            mm_vision_tower="openai/clip-vit-large-patch14-336",
            mm_projector_type="mlp2x_gelu",
        )(folder)

    return make


def adapter(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google/gemma-2-2b", "peft_type": "LORA"}')
    save_file({"a": torch.zeros(1)}, folder / "adapter_model.safetensors")


def adapter_beside_a_configuration(folder: Path) -> None:
    language_model_folder(folder, "llama2")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "google/gemma-2-2b"}')


def holding(*names: str) -> Callable[[Path], None]:
    """Files of a few bytes, or folders."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if name.endswith("/") else path.write_text("{}")

    return make


def of(make: Callable[[Path], object], **fields: object) -> Callable[[Path], None]:
    def made(folder: Path) -> None:
        make(folder)
        edited(**fields)(folder)

    return made


def llama(folder: Path) -> None:
    language_model_folder(folder, "llama2")


NO_LANGUAGE_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "LLaVA, transformers' layout": (
        llava,
        r"a LLaVA model \(LlavaForConditionalGeneration\), which cannot be trained as a whole; give its language "
        r"model's folder \(vicuna\) as --model and its tower's as --vision-tower",
    ),
    "LLaVA 1.5, its own layout": (
        original_llava("llava_llama"),
        r"a LLaVA model \(LlavaLlamaForCausalLM\).* tower's \(openai/clip-vit-large-patch14-336\) as --vision-tower",
    ),
    "LLaVA 1, its own layout": (original_llava("llava"), r"a LLaVA model \(LlavaLlamaForCausalLM\)"),
    "released Griffon weights": (of(llama, model_type="llama2_Griffon"), "griffon-train convert griffon"),
    "CLIP": (whole_clip, r"a vision model \(clip\); give it as --vision-tower, and a language model as --model"),
    "a CLIP tower": (tower_folder, r"a vision model \(clip_vision_model\)"),
    "SigLIP": (siglip, r"a vision model \(siglip_vision_model\)"),
    "another multimodal model": (
        of(llama, model_type="qwen2_vl", vision_config={}),
        r"a multimodal model \(qwen2_vl\)",
    ),
    "BERT": (
        lambda folder: BertForMaskedLM(BertConfig(**TINY, vocab_size=272)).save_pretrained(folder),
        r"a model of type bert \(BertForMaskedLM\), which does not continue text; give a causal language model",
    ),
    "T5": (
        lambda folder: T5ForConditionalGeneration(
            T5Config(d_model=32, d_ff=64, num_layers=1, num_heads=2, vocab_size=272)
        ).save_pretrained(folder),
        "a model of type t5 .*does not continue text",
    ),
    "a quantized model": (of(llama, quantization_config={"quant_method": "gptq"}), r"quantized weights \(gptq\)"),
    "a classifier": (
        lambda folder: LlamaForSequenceClassification(LlamaConfig(**TINY, vocab_size=272)).save_pretrained(folder),
        "missing: lm_head.weight; not expected: score.weight",
    ),
    "code of its own": (
        of(llama, model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
        "model_type 'mine' .* without remote code",
    ),
    "an adapter": (adapter, "a PEFT adapter of google/gemma-2-2b; merge the two"),
    "an adapter beside a configuration": (adapter_beside_a_configuration, "a PEFT adapter of google/gemma-2-2b"),
    "GGUF": (holding("model-q4.gguf"), "GGUF files, which cannot be trained; give the safetensors"),
    "Meta's layout": (holding("params.json", "consolidated.00.pth"), "Meta's own layout of Llama"),
    "a run": (holding("settings.json", "model/"), "the output folder of a run; give it as --from, or the model/ in it"),
    "a checkpoint": (holding("checkpoint.json"), "a checkpoint of a run; rerun the command of the run to resume it"),
    "the Hub's cache": (
        holding("snapshots/abc/config.json"),
        "the Hub's cache; give a snapshot in it: .*/snapshots/abc",
    ),
    "the folder above": (holding("gemma/config.json"), "no config.json in it; did you mean .*/gemma[?]"),
    "an empty folder": (holding(), "an empty folder; give a folder that save_pretrained"),
    "a file": (lambda path: path.write_text(""), "is a file; give the folder that contains it"),
    "nothing": (lambda path: None, "no such folder"),
}


@pytest.mark.parametrize("kind", NO_LANGUAGE_MODELS)
def test_what_is_not_a_language_model_is_refused_with_its_kind(kind: str, whole: Path, tmp_path: Path) -> None:
    make, message = NO_LANGUAGE_MODELS[kind]
    make(tmp_path / "given")
    with pytest.raises((SettingsError, DataError), match=message) as caught:
        load_model(given_with("--model", tmp_path / "given", whole), torch.float32)
    text = str(caught.value)
    assert text.startswith(f"--model {tmp_path / 'given'}: ") and "\n" not in text


@pytest.mark.parametrize("option", ["--vision-tower", "--region-tower"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: language_model_folder(folder, "qwen2"), "a model of type 'qwen2'; expected a CLIP model"),
        (siglip, "a model of type 'siglip_vision_model'; expected a CLIP model"),
        (
            lambda folder: shutil.copytree(folder.parent / "saved", folder),
            "a model of type 'griffon'; expected a CLIP model",
        ),
        (holding(), "config.json: no such file"),
        (lambda path: None, "no such folder"),
    ],
    ids=["Qwen2", "SigLIP", "Griffon", "an empty folder", "nothing"],
)
def test_what_is_not_a_tower_is_refused_with_its_kind(
    option: str, make: Callable[[Path], object], message: str, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole / "saved", tmp_path / "saved")
    make(tmp_path / "given")
    with pytest.raises(SettingsError, match=message) as caught:
        load_model(given_with(option, tmp_path / "given", whole), torch.float32)
    assert str(caught.value).startswith(f"{option} {tmp_path / 'given'}")


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("model", "google/gemma-2-2b"),
        ("vision_tower", "openai/clip-vit-large-patch14-336"),
        ("region_tower", "openai/clip-vit-large-patch14"),
        ("tokenizer", "Qwen/Qwen2.5-3B"),
    ],
)
def test_a_name_on_the_hub_is_answered_with_its_download(option: str, name: str, whole: Path) -> None:
    given: dict[str, Any] = {"model": str(whole / "language"), "vision_tower": whole / "tower"}
    given[option] = name if option == "model" else Path(name)
    with pytest.raises(SettingsError, match=f"`hf download {name} --local-dir {Path(name).name}`") as caught:
        load_model(settings(**given), torch.float32)
    assert str(caught.value).startswith(f"--{option.replace('_', '-')} {name}: no such folder")


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
