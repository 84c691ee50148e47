"""Adapters of a model's layers: which layers have them, what they are at first, and merging."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from peft import PeftConfig, get_peft_model

from griffon_shards.support.errors import SettingsError
from griffon_train.config.lora import LoraSettings
from griffon_train.model.deferred import settle
from griffon_train.model.freezing import Freezing, freeze, parameter_counts
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import (
    adapted_layers,
    adapter_config,
    adapter_weights,
    add_adapters,
    is_adapter_weight,
    merge,
)
from griffon_train.model.presets import preset_config

RANK = 4

Model = GriffonForConditionalGeneration


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:  # noqa: ANN401 - a model, or PEFT's around it
    """Of tokens with an image; [2, 60, V]."""
    draws = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(10, 200, (2, 60), generator=draws)
    ids_BL[:, 3 : 3 + model.image_tokens] = model.config.image_token_id
    pixels_BCHW = torch.randn(2, 3, 70, 70, generator=draws)
    result: torch.Tensor = model.eval()(input_ids=ids_BL, pixel_values=pixels_BCHW).logits
    return result


def tiny(family: str = "gemma2") -> Model:
    return GriffonForConditionalGeneration(preset_config(f"tiny-{family}"))


def test_new_adapters_depend_on_the_seed_and_their_names_alone() -> None:
    lora = LoraSettings(lora_r=RANK)
    models = [tiny() for _ in range(4)]
    dtypes = torch.float32, torch.float32, torch.bfloat16, torch.float32
    for model, seed, dtype in zip(models, (1, 1, 1, 2), dtypes, strict=True):
        torch.rand(seed)  # the state of torch's generator does not matter
        add_adapters(model, lora, seed, dtype)
    first, again, rounded, other = (adapter_weights(model) for model in models)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight.to(torch.bfloat16), rounded[name])
        assert bool((weight == 0).all()) == (".lora_B." in name)
        assert torch.equal(weight, other[name]) == (".lora_B." in name)


LAYERS = {f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")}


@pytest.mark.parametrize(
    ("targets", "kinds", "count"),
    [
        (None, LAYERS, 14),
        ("q_proj,v_proj", {"q_proj", "v_proj"}, 4),
        ("q_proj, v_proj", {"q_proj", "v_proj"}, 4),
        ("self_attn.o_proj", {"o_proj"}, 2),
        (r"model\.layers\.1\..*", LAYERS, 7),
        (r".*\.(up|down)_proj", {"up_proj", "down_proj"}, 4),
        ("lm_head,q_proj", {"lm_head", "q_proj"}, 3),
    ],
)
def test_the_layers_that_are_adapted(targets: str | None, kinds: set[str], count: int) -> None:
    """Never those of the towers, which have layers of the same names."""
    layers = adapted_layers(tiny("llama2"), LoraSettings(lora_r=RANK, lora_targets=targets))
    assert len(layers) == count
    assert {name.rpartition(".")[2] for name in layers} == kinds
    assert all(name.startswith("language_model.") for name in layers)


def test_many_layers_are_named_so_that_peft_finds_no_others(tmp_path: Path) -> None:
    """PEFT shortens the names of more than 20 layers to their ends, which layers of the towers have, too."""
    model = GriffonForConditionalGeneration(preset_config("small-qwen2"))
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.float32)
    names = {name.partition(".lora_")[0] for name in adapter_weights(model)}
    assert len(names) == 28 and all(name.startswith("language_model.") for name in names)
    (tmp_path / "adapter_config.json").write_bytes(orjson.dumps(adapter_config(model, ["projector"], "base")))
    plain = get_peft_model(
        GriffonForConditionalGeneration(preset_config("small-qwen2")), PeftConfig.from_pretrained(str(tmp_path))
    )
    adapted = {name.partition(".lora_")[0] for name, _ in plain.named_parameters() if ".lora_A." in name}
    assert adapted == {f"base_model.model.{name}" for name in names}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            "q_proj,vproj",
            "--lora-targets q_proj,vproj: vproj is no linear layer of the language model; there are down_",
        ),
        ("embed_tokens", "embed_tokens is no linear layer"),
        (r"layers\..*", "selects no linear layer of the language model; .* in complete names such as lm_head"),
        ("lm_head", "--lora-targets lm_head: selects the head, whose weights are those of the embeddings"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused(targets: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        adapted_layers(tiny(), LoraSettings(lora_r=RANK, lora_targets=targets))


def test_an_adapted_head_is_merged_too() -> None:
    """Of a model whose head has weights of its own."""
    model = tiny("llama2")
    before = logits(model)
    add_adapters(model, LoraSettings(lora_r=RANK, lora_targets="lm_head"), 0, torch.float32)
    assert torch.equal(logits(model), before)
    assert list(adapter_weights(model)) == [f"language_model.lm_head.lora_{each}.default.weight" for each in "AB"]
    with torch.no_grad():
        for weight in adapter_weights(model).values():
            weight.fill_(0.1)
    adapted = logits(model)
    merge(model, torch.float32)
    settle(model.parameters(), torch.float32)
    assert torch.allclose(logits(model), adapted, rtol=0, atol=1e-5)
    assert not torch.allclose(adapted, before, rtol=0, atol=1e-2)


def test_a_model_without_weights_has_adapters_to_count() -> None:
    """As the estimate of memory needs them."""
    with torch.device("meta"):
        model = tiny()
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.bfloat16)
    freeze(model, Freezing())
    sizes = {name: weight.numel() for name, weight in adapter_weights(tiny_with_adapters()).items()}
    weights = dict(model.named_parameters())
    assert {name: weights[name].numel() for name in weights if is_adapter_weight(name)} == sizes
    assert parameter_counts(model)["language_model"][1] == sum(sizes.values())
    assert {weight.device.type for weight in weights.values()} == {"meta"}


def tiny_with_adapters() -> Model:
    model = tiny()
    add_adapters(model, LoraSettings(lora_r=RANK), 0, torch.float32)
    return model
