"""Folders that are given as a model or a tower: damaged, incomplete, or of another kind."""

import os
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
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.training.model_loading import load_model

from ..model_folders import language_model_folder, tower_folder
from .launcher import Launcher

TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def settings(**more: object) -> Settings:
    given = {"stage": "custom", "shards": (Path("set"),), "output_dir": Path("run"), **more}
    return resolve({name: value for name, value in given.items() if value is not None}).settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model, a tower and a saved Griffon model, as a run may be given them."""
    root = tmp_path_factory.mktemp("whole")
    language_model_folder(root / "language", "llama2")
    tower_folder(root / "tower")
    griffon = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    griffon.save_pretrained(root / "saved")
    byte_tokenizer().save_pretrained(root / "saved")
    (root / "run").mkdir()
    shutil.copytree(root / "saved", root / "run/model")
    return root


OPTIONS = {
    "--model": ("language", "config.json"),
    "--vision-tower": ("tower", "config.json"),
    "--region-tower": ("tower", "config.json"),
    "--model ": ("saved", "config.json"),
    "--from": ("run", "model/config.json"),
}
"""By option, what it is given of `whole`, and its configuration; with the blank, a saved model."""


def given_with(option: str, folder: Path, whole: Path) -> Settings:
    """Return settings that give a folder to one option, and complete folders to the others."""
    if option == "--from":
        return settings(from_run=folder)
    if option == "--model ":
        return settings(model=str(folder))
    parts = {"model": whole / "language", "vision_tower": whole / "tower", "region_tower": whole / "tower"}
    parts[option.removeprefix("--").replace("-", "_")] = folder
    return settings(**{**parts, "model": str(parts["model"])})


def edited(**fields: object) -> Callable[[Path], None]:
    """Change a configuration; None takes a field away."""

    def edit(folder: Path) -> None:
        config = folder / "config.json"
        stored = {**orjson.loads(config.read_bytes()), **fields}
        config.write_bytes(orjson.dumps({name: value for name, value in stored.items() if value is not None}))

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


def cut(name: str) -> Callable[[Path], None]:
    def halve(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return halve


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def pickled(content: object, size: int | None = None) -> Callable[[Path], None]:
    """Replace safetensors by a pickle; `size` truncates it."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(content, folder / "pytorch_model.bin")
        if size is not None:
            os.truncate(folder / "pytorch_model.bin", size)

    return write


def index_of_nothing(folder: Path) -> None:
    """An index that names a file which is not there."""
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_bytes(orjson.dumps(index))


def damaged_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(b'{"weight_map": {')


def renamed(folder: Path) -> None:
    """The last tensor under another name."""
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[f"{name}.old"] = tensors.pop(name)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def reshaped(folder: Path) -> None:
    """The last tensor a row longer."""
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[-1]
    tensors[name] = torch.cat([tensors[name], tensors[name][:1]])
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def quantized(folder: Path) -> None:
    """Store the weights as integers, as tools for quantization do; other tensors stay."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("proj.weight"):
            tensors[name] = (tensor * 127).to(torch.int8)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


DAMAGES: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "weights cut short": (cut("model.safetensors"), DataError, "model.safetensors: damaged: .*; download it again"),
    "weights of no bytes": (
        written("model.safetensors", b""),
        DataError,
        "model.safetensors: damaged: .*; download it",
    ),
    "a pointer of Git LFS": (
        written("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        DataError,
        "a Git LFS pointer, not the weights; run `git lfs pull`",
    ),
    "no weights": (without("model.safetensors"), SettingsError, "no weights; expected model.safetensors or pytorch"),
    "an index of files that are not there": (
        index_of_nothing,
        DataError,
        "00002.safetensors: no such file; the weights",
    ),
    "an index cut short": (damaged_index, DataError, "model.safetensors.index.json: not valid JSON"),
    "a pickle of no bytes": (
        pickled(None, size=0),
        DataError,
        "pytorch_model.bin: damaged: it is truncated; download it again",
    ),
    "a pickle cut short": (pickled({"a": torch.zeros(999)}, size=999), DataError, "pytorch_model.bin: .*damaged"),
    "a pickle of code": (
        pickled({"a": print}),
        DataError,
        "pytorch_model.bin: contains more than tensors.*no code in it was",
    ),
    "a pickle of other tensors": (pickled({"a": torch.zeros(2)}), DataError, r"missing: .*not expected: a"),
    "another name": (renamed, DataError, r"missing: \S+; not expected: \S+\.old"),
    "another shape": (reshaped, DataError, r"shape: \S+ \[\d+.*\], expected \["),
    "whole numbers": (quantized, DataError, r"quantized weights \(int8\), which .*proj.weight.*; get them in"),
    "a configuration cut short": (cut("config.json"), DataError, "config.json: not valid JSON: .*"),
    "a configuration of no bytes": (written("config.json", b""), DataError, "config.json: not valid JSON"),
    "a list as configuration": (written("config.json", b"[1]"), DataError, "config.json: expected a JSON object"),
    "no model_type": (edited(model_type=None), SettingsError, "model_type|a model of type None"),
    "model_type of another kind": (edited(model_type=7), SettingsError, "model_type|a model of type 7"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("option", OPTIONS)
def test_damage_is_reported_in_a_line_with_option_and_folder(
    option: str, damage: str, whole: Path, tmp_path: Path
) -> None:
    name, config = OPTIONS[option]
    given = tmp_path / "given"
    shutil.copytree(whole / name, given)
    do, kind, message = DAMAGES[damage]
    do((given / config).parent)
    with pytest.raises(kind, match=message) as caught:
        load_model(given_with(option, given, whole), torch.float32)
    text = str(caught.value)
    assert text.startswith(f"{option.strip()} ") and str(given) in text and "\n" not in text


@pytest.mark.parametrize(
    ("option", "fields", "message"),
    [
        ("--model", {"hidden_size": 64}, r"shape: .*embed_tokens.weight \[272, 32\], expected \[272, 64\]"),
        ("--model", {"num_hidden_layers": 3}, r"missing: model\.layers\.2\."),
        ("--model", {"num_hidden_layers": 1}, r"not expected: model\.layers\.1\."),
        ("--model", {"hidden_size": "wide"}, "transformers cannot load it"),
        ("--model", {"num_attention_heads": 0}, "transformers cannot load it"),
        ("--model", {"hidden_act": "magic"}, "transformers cannot load it .*magic"),
        ("--model", {"model_type": "llama9"}, "model_type 'llama9' in its config.json is unknown to transformers 5"),
        ("--vision-tower", {"hidden_size": 64}, r"shape: .*expected \[64"),
        ("--vision-tower", {"num_hidden_layers": 4}, r"missing: encoder\.layers\.3\."),
        ("--vision-tower", {"hidden_size": "wide"}, "transformers cannot load it .*hidden_size"),
        ("--vision-tower", {"hidden_act": "magic"}, "transformers cannot load it .*magic"),
        ("--vision-tower", {"num_attention_heads": 3}, "transformers cannot load it .*multiple"),
        ("--vision-tower", {"image_size": 75}, "image size 75 px is not a multiple of patch size 14 px"),
        ("--region-tower", {"image_size": 75}, "image size 75 px is not a multiple of patch size 14 px"),
        ("--vision-tower", {"patch_size": 0}, "not a multiple of patch size 0 px"),
        ("--vision-tower", {"image_size": [70, 84]}, "expected one for square images with 3 channels"),
        (
            "--vision-tower",
            {"num_channels": 1},
            "1 channels, patches of 14 px; expected one for square images with 3 channels",
        ),
        ("--model ", {"projector": "mlp2x_gelu"}, r"missing: projector\..*not expected: projector\.conv"),
        ("--model ", {"projector": "magic"}, "transformers cannot load it .*magic"),
        ("--model ", {"text_config": {"model_type": "llama9"}}, "transformers cannot load it"),
    ],
)
def test_a_configuration_that_is_not_of_the_weights_is_refused(
    option: str, fields: dict[str, object], message: str, whole: Path, tmp_path: Path
) -> None:
    """With one more layer, or weights under other names, transformers would silently use random weights."""
    given = tmp_path / "given"
    shutil.copytree(whole / OPTIONS[option][0], given)
    edited(**fields)(given)
    with pytest.raises((DataError, SettingsError), match=message) as caught:
        load_model(given_with(option, given, whole), torch.float32)
    assert str(caught.value).startswith(f"{option.strip()} {given}") and "\n" not in str(caught.value)


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


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b'{"temperature": 0.7'])
@pytest.mark.parametrize("option", ["--model", "--model ", "--from"])
def test_a_damaged_generation_config_is_named(option: str, content: bytes, whole: Path, tmp_path: Path) -> None:
    """Otherwise its settings would be lost silently."""
    name, config = OPTIONS[option]
    shutil.copytree(whole / name, tmp_path / "given")
    (tmp_path / "given" / config).with_name("generation_config.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{option.strip()} .*generation_config.json: (not valid|expected a) JSON"):
        load_model(given_with(option, tmp_path / "given", whole), torch.float32)


def test_a_head_that_differs_where_the_configuration_ties_it_is_refused(whole: Path, tmp_path: Path) -> None:
    """Saved again, one of the two would be lost."""
    shutil.copytree(whole / "language", tmp_path / "given")
    edited(tie_word_embeddings=True)(tmp_path / "given")
    with pytest.raises(DataError, match=r"head and of its embeddings differ, but its config\.json ties them; set"):
        load_model(given_with("--model", tmp_path / "given", whole), torch.float32)


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


def test_the_command_ends_with_one_line_and_the_exit_code_of_the_error(
    launcher: Launcher, frozen_set: Path, whole: Path, tmp_path: Path
) -> None:
    """2 for what is given, 1 for damaged data; the folder of the run is not made."""
    shutil.copytree(whole / "saved", tmp_path / "damaged")
    cut("model.safetensors")(tmp_path / "damaged")
    run = tmp_path / "run"
    for model, status, message in (
        ("google/gemma-2-2b", 2, "error: --model google/gemma-2-2b: no such folder. If it is a rep"),
        (tmp_path / "damaged", 1, f"error: --model {tmp_path / 'damaged' / 'model.safetensors'}: damaged: "),
    ):
        ended = launcher.run(
            *("run", "--stage", "custom", "--model", model, "--shards", frozen_set, "--output-dir", run), world_size=1
        )
        assert ended.codes == [status]
        assert [line for line in ended.said[0].splitlines() if line.startswith("error: ")] == [
            ended.said[0].splitlines()[-1]
        ]
        assert ended.said[0].splitlines()[-1].startswith(message) and "Traceback" not in ended.said[0]
        assert not run.exists()
