"""The model that a run begins with."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CLIPVisionModel

from griffon_shards.errors import SettingsError
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config
from griffon_train.model.tokens import byte_tokenizer
from griffon_train.resolving import resolve
from griffon_train.settings import Settings
from griffon_train.training.loading import load_model


def settings(**more: object) -> Settings:
    model = {} if "from_run" in more else {"model": "tiny-llama2"}
    return resolve({"stage": "custom", "shards": (Path("set"),), "output_dir": Path("run"), **model, **more}).settings


def test_in_bfloat16_only_weights_are_rounded() -> None:
    """Rotary frequencies in bfloat16 would put far tokens at other places."""
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
        ({"model": "nowhere"}, "neither one of gemma2-2b, .* nor a folder with a model in it"),
        ({"from_run": Path("nowhere")}, "--from nowhere: no such folder"),
        ({"from_run": Path("tests")}, "holds neither model/ nor mm_projector.bin; has that run ended"),
    ],
)
def test_what_is_not_there_is_refused(more: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_model(settings(**more), torch.float32)


def test_a_region_tower_joins_a_model_that_has_none(tmp_path: Path) -> None:
    """As visual referring begins on a model that has only learned to see whole pictures."""
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
    before, after = (each(ids, region_values=region).logits for each in (model.eval(), again.eval()))  # type: ignore[no-untyped-call]
    assert torch.allclose(before, after, atol=1e-5)


def test_a_language_model_and_a_tower_are_joined(tmp_path: Path) -> None:
    config = preset_config("tiny-llama2")
    torch.manual_seed(0)
    text = AutoModelForCausalLM.from_config(config.text_config)
    text.save_pretrained(tmp_path / "text")
    byte_tokenizer().save_pretrained(tmp_path / "text")
    tower = CLIPVisionModel(config.vision_config)  # type: ignore[arg-type]
    tower.save_pretrained(tmp_path / "tower")
    given = {"model": str(tmp_path / "text"), "vision_tower": tmp_path / "tower"}
    model, _ = load_model(settings(**given), torch.float32)
    state = model.state_dict()
    for part, made in (("language_model", text), ("vision_tower", tower)):
        for name, weight in made.state_dict().items():
            assert torch.equal(state[f"{part}.{name}"], weight), name
    assert torch.isfinite(state["projector.conv.weight"]).all()
    assert model.region_tower is None
    again, _ = load_model(settings(**given), torch.float32)
    assert torch.equal(again.state_dict()["projector.conv.weight"], state["projector.conv.weight"])
    with pytest.raises(SettingsError, match="a language model that cannot see; give --vision-tower"):
        load_model(settings(model=str(tmp_path / "text")), torch.float32)
