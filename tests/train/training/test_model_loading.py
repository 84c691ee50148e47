"""The model that a run begins with."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel

from griffon_shards.support.errors import SettingsError
from griffon_shards.types import Turn
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.text.chat_templates import encode, expand_and_truncate
from griffon_train.training.model_loading import default_chat, load_model

from ..model_folders import FAMILIES, language_model_folder, real_tokenizer, tower_folder
from .given_folders import settings


def test_in_bfloat16_only_weights_are_rounded() -> None:
    """Rotary frequencies in bfloat16 would shift the positions of distant tokens."""
    whole, _ = load_model(settings(), torch.float32)
    rounded, _ = load_model(settings(), torch.bfloat16)
    assert {parameter.dtype for parameter in rounded.parameters()} == {torch.bfloat16}
    buffers = dict(rounded.named_buffers())
    assert any("inv_freq" in name for name in buffers)
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (load_model(settings(seed=seed), torch.float32)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["projector.conv.weight"], other["projector.conv.weight"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model": "gemma2-2b"}, "has random weights and no tokenizer; give --tokenizer"),
        ({"model": "nowhere"}, "neither a preset .gemma2-2b, .* nor a folder with a model"),
        ({"from_run": Path("nowhere")}, "--from nowhere: no such folder"),
        (
            {"from_run": Path("tests")},
            "tests: no config.json in it; expected the output folder of a run or an",
        ),
    ],
)
def test_what_does_not_exist_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**more), torch.float32)


def test_a_region_tower_joins_a_model_that_has_none(tmp_path: Path) -> None:
    """Visual referring starts from a model that has only seen complete images."""
    torch.manual_seed(0)
    seeing = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    seeing.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    tower = CLIPVisionModel(preset_config("tiny-llama2").region_config)  # type: ignore[arg-type]
    tower.save_pretrained(tmp_path / "tower")
    model, _ = load_model(settings(model=str(tmp_path / "model"), region_tower=tmp_path / "tower"), torch.float32)
    state = model.state_dict()
    for name, weight in seeing.state_dict().items():
        assert torch.equal(state[name], weight), name
    for name, weight in tower.state_dict().items():
        assert torch.equal(state[f"region_tower.{name}"], weight), name
    ids, region = torch.tensor([[1, -201, 5]]), torch.rand(1, 3, 28, 28)
    model.save_pretrained(tmp_path / "saved")
    again = GriffonForConditionalGeneration.from_pretrained(tmp_path / "saved")
    before, after = (item(ids, region_values=region).logits for item in (model.eval(), again.eval()))  # type: ignore[no-untyped-call]
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("whole", [False, True], ids=["a tower alone", "CLIP"])
def test_a_language_model_and_a_tower_are_joined(family: str, whole: bool, tmp_path: Path) -> None:
    """The weights are bit-identical, and the language model gives the same logits for text as alone."""
    language_model_folder(tmp_path / "text", family)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    tower = CLIPVisionModel.from_pretrained(tower_folder(tmp_path / "tower", whole=whole))
    given = {"model": str(tmp_path / "text"), "vision_tower": tmp_path / "tower"}
    model, _ = load_model(settings(**given), torch.float32)
    state = model.state_dict()
    for part, made in (("language_model", text), ("vision_tower", tower)):
        for name, weight in made.state_dict().items():
            assert torch.equal(state[f"{part}.{name}"], weight), name
    ids = torch.arange(12)[None]
    text.set_attn_implementation(model.language_model.config._attn_implementation)
    assert torch.equal(model.eval()(ids).logits, text(ids).logits)  # type: ignore[no-untyped-call]
    assert torch.isfinite(state["projector.conv.weight"]).all()
    assert model.region_tower is None
    again, _ = load_model(settings(**given), torch.float32)
    assert torch.equal(again.state_dict()["projector.conv.weight"], state["projector.conv.weight"])
    with pytest.raises(SettingsError, match="a language model without a vision tower; give --vision-tower"):
        load_model(settings(model=str(tmp_path / "text")), torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_language_model_with_its_real_tokenizer_takes_a_conversation(family: str, tmp_path: Path) -> None:
    """The conversation is in the family's chat template, every token of which has an embedding."""
    text = language_model_folder(tmp_path / "text", family, real_tokenizer(family), hidden_size=16)
    given = {"model": str(text), "vision_tower": tower_folder(tmp_path / "tower")}
    model, tokenizer = load_model(settings(**given), torch.float32)
    turns = [Turn(role="human", text="<image>\nWhere is the cat?"), Turn(role="gpt", text="cat-[0.1,0.2,0.3,0.4]")]
    encoded, _ = expand_and_truncate(
        encode(default_chat(model), turns, tokenizer, images=1), 4096, "error", model.image_tokens, "the sample"
    )
    ids, labels = torch.tensor([encoded.ids]), torch.tensor([encoded.labels])
    loss = model(ids, pixel_values=torch.rand(1, 3, 70, 70), labels=labels).loss
    assert loss is not None and 0 < loss.item() < 2 * math.log(len(tokenizer))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["auto", "eager", "sdpa", "flex_attention"])
def test_attention_is_computed_as_asked(family: str, attention: str, tmp_path: Path) -> None:
    given = {
        "model": str(language_model_folder(tmp_path / "text", family)),
        "vision_tower": tower_folder(tmp_path / "tower"),
        "attention": attention,
    }
    if (family, attention) == ("gemma2", "sdpa"):
        with pytest.raises(SettingsError, match="gemma2 caps attention scores"):
            load_model(settings(**given), torch.float32)
        return
    model, _ = load_model(settings(**given), torch.float32)
    best = "eager" if family == "gemma2" else "sdpa"
    language_model: Any = model.language_model
    computes = {layer.self_attn.config._attn_implementation for layer in language_model.model.layers}
    assert computes == {best if attention == "auto" else attention}
    tower: Any = model.vision_tower
    computes = {layer.self_attn.config._attn_implementation for layer in tower.encoder.layers}
    assert computes == {"eager" if attention == "eager" else "sdpa"}


ROPE = {"rope_theta": 10000.0}
POSITIONS: dict[str, tuple[str, dict[str, Any], int]] = {
    "as the configuration says": ("llama2", {"max_position_embeddings": 96}, 96),
    "a sliding window": ("gemma2", {"max_position_embeddings": 96, "sliding_window": 16}, 96),
    "linear, of before scaling (Vicuna 16k)": (
        "llama2",
        {"max_position_embeddings": 96, "rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}},
        384,
    ),
    "dynamic": (
        "llama2",
        {"max_position_embeddings": 96, "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}},
        192,
    ),
    "YaRN, of before scaling (Qwen2.5)": (
        "qwen2",
        {
            "max_position_embeddings": 96,
            "rope_parameters": {
                **ROPE,
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 96,
            },
        },
        384,
    ),
    "YaRN, of after scaling (DeepSeek)": (
        "llama2",
        {
            "max_position_embeddings": 384,
            "rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 96},
        },
        384,
    ),
    "Llama 3.1's": (
        "llama2",
        {
            "max_position_embeddings": 384,
            "rope_parameters": {
                **ROPE,
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 96,
            },
        },
        384,
    ),
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_samples_longer_than_the_language_model_has_positions_are_refused(kind: str, tmp_path: Path) -> None:
    family, fields, positions = POSITIONS[kind]
    given = {
        "model": str(language_model_folder(tmp_path / "text", family, **fields)),
        "vision_tower": tower_folder(tmp_path / "tower"),
    }
    load_model(settings(**given, max_length=positions), torch.float32)
    message = f"--max-length {positions + 1} is more than .* {positions} positions; give --max-length {positions} "
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**given, max_length=positions + 1), torch.float32)
