"""The model against its parts put together by hand, and everything a model of transformers is asked to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPVisionModel

from griffon_train.model.attention import attention_of
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import PRESETS, preset_config

Inputs = dict[str, torch.Tensor]
Model = Any  # transformers is typed in part, too little for its parts to be looked into
FAMILIES = ["tiny-gemma2", "tiny-llama2", "tiny-qwen2"]
IMAGE, REGION = -200, -201


def made(name: str, **fields: object) -> Model:
    """A tiny model whose weights are large enough that every part is heard in the logits."""
    torch.manual_seed(0)
    config = preset_config(name)
    for field, value in fields.items():
        setattr(config, field, value)
    config._attn_implementation = dict(attention_of(config.get_text_config()))
    model: Model = GriffonForConditionalGeneration(config)
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def batch(model: Model, pictures: tuple[int, ...], regions: tuple[int, ...]) -> Inputs:
    """Samples with so many images and regions each, padded on the right."""
    rows = []
    for index, (seen, shown) in enumerate(zip(pictures, regions, strict=True)):
        row = [1, 9 + index, *([IMAGE] * model.image_tokens + [40]) * seen, *[REGION, 50] * shown]
        rows.append([*row, *[60, 61, 62 + index][: 3 - index % 2]])
    longest = max(map(len, rows))
    vision, region = model.config.vision_config.image_size, model.config.region_config.image_size
    draws = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "pixel_values": torch.randn(sum(pictures), 3, vision, vision, generator=draws),
        "region_values": torch.randn(sum(regions), 3, region, region, generator=draws),
    }


def features_by_hand(model: Model, inputs: Inputs) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Compute the features of images and regions with CLIP, convolution and linear layers, and Gemma's scale."""
    state = model.state_dict()
    width = model.config.get_text_config().hidden_size
    scale = width**0.5 if model.config.get_text_config().model_type == "gemma2" else 1.0
    pictures, regions = [], []
    for pixels in inputs["pixel_values"]:
        tower = CLIPVisionModel(model.config.vision_config).eval()
        tower.load_state_dict(model.vision_tower.state_dict())
        patches = tower(pixels[None], output_hidden_states=True).hidden_states[-2][0, 1:]
        side = round(len(patches) ** 0.5)
        grid = patches.T.reshape(-1, side, side)
        reduced = F.conv2d(grid, state["projector.conv.weight"], state["projector.conv.bias"], stride=2, padding=1)
        tokens = F.gelu(reduced.flatten(1).T)
        pictures.append(F.linear(tokens, state["projector.linear.weight"], state["projector.linear.bias"]) * scale)
    for pixels in inputs["region_values"]:
        tower = CLIPVisionModel(model.config.region_config).eval()
        tower.load_state_dict(model.region_tower.state_dict())
        seen = tower(pixels[None], output_hidden_states=True).hidden_states[-1][0, :1]
        hidden = F.relu(F.linear(seen, state["region_projector.0.weight"], state["region_projector.0.bias"]))
        regions.append(F.linear(hidden, state["region_projector.2.weight"], state["region_projector.2.bias"]) * scale)
    return pictures, regions


def logits_by_hand(model: Model, inputs: Inputs) -> list[torch.Tensor]:
    """Sample by sample, without padding: embeddings and features joined in a row, given to the language model."""
    pictures, regions = (iter(features) for features in features_by_hand(model, inputs))
    embed = model.language_model.get_input_embeddings()
    result = []
    for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
        parts, row = [], ids[mask.bool()].tolist()
        while row:
            if row[0] == IMAGE:
                parts.append(next(pictures))
                del row[: model.image_tokens]
            elif row[0] == REGION:
                parts.append(next(regions))
                del row[0]
            else:
                parts.append(embed(torch.tensor([row.pop(0)])))
        result.append(model.language_model(inputs_embeds=torch.cat(parts)[None]).logits[0])
    return result


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("pictures", "regions"),
    [((0, 0), (0, 0)), ((1, 0), (0, 0)), ((1, 1), (1, 0)), ((2, 0, 1), (0, 0, 1)), ((0, 3), (2, 1))],
)
@torch.no_grad()
def test_logits_are_those_of_the_parts(name: str, pictures: tuple[int, ...], regions: tuple[int, ...]) -> None:
    model = made(name)
    inputs = batch(model, pictures, regions)
    logits = model(**inputs).logits
    for row, mask, expected in zip(logits, inputs["attention_mask"], logits_by_hand(model, inputs), strict=True):
        assert (row[mask.bool()] - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max()))


@torch.no_grad()
def test_every_part_changes_the_logits() -> None:
    """Otherwise the test above could pass with features that change nothing."""
    model = made("tiny-gemma2")
    inputs = batch(model, (1,), (1,))
    before = model(**inputs).logits
    for name in ("pixel_values", "region_values"):
        assert (model(**{**inputs, name: inputs[name] + 1}).logits - before).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_without_an_image_runs_every_tower(name: str) -> None:
    """All that trains gets a gradient, all zeros where nothing was seen: among ranks nobody waits for anybody."""
    model = made(name)
    inputs = batch(model, (0, 0), (0, 0))
    called: list[str] = []
    for part in ("vision_tower", "region_tower"):
        getattr(model, part).embeddings.register_forward_hook(lambda *_, part=part: called.append(part))
    output = model(**inputs, labels=inputs["input_ids"])
    output.loss.backward()
    assert called == ["vision_tower", "region_tower"]
    assert not model.projector.conv.weight.grad.any()
    assert not model.region_projector[0].weight.grad.any()
    assert model.get_input_embeddings().weight.grad.any()


@pytest.mark.parametrize(("pictures", "given"), [((1, 1), 1), ((0, 1), 2), ((1,), 0)])
def test_an_image_too_many_or_too_few_is_refused(pictures: tuple[int, ...], given: int) -> None:
    model = made("tiny-llama2")
    inputs = batch(model, pictures, (0,) * len(pictures))
    inputs["pixel_values"] = torch.zeros(given, 3, 70, 70)
    with pytest.raises(ValueError, match=rf"{sum(pictures) * 9} tokens for images, but {given} images"):
        model(**inputs)


def test_a_model_without_a_region_tower_refuses_regions() -> None:
    model = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    with pytest.raises(ValueError, match="only a model with `region_config` takes regions"):
        model(torch.tensor([[1, REGION, 5]]), region_values=torch.zeros(1, 3, 28, 28))


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = made(name)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        inputs = batch(model, (1, 0), (0, 1))
        model(**inputs, labels=inputs["input_ids"].clamp(min=0), use_cache=False).loss.backward()
        gradients.append(
            {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        )
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert any(name.startswith("vision_tower") for name in plain)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    model = made(name, box_style="bin")
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path)
    loading: Any = GriffonForConditionalGeneration.from_pretrained
    loaded, info = loading(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.box_style == "bin"
    assert loaded.generation_config.max_new_tokens == 7
    inputs = batch(model, (1, 2), (1, 0))
    with torch.no_grad():
        difference = loaded.eval()(**inputs).logits - model(**inputs).logits
    assert difference.abs().max() < 1e-5
    assert all(torch.equal(loaded.state_dict()[value], weight) for value, weight in model.state_dict().items())
    tied = PRESETS[name].family == "gemma2"
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_generate_continues_greedily_from_what_it_sees(name: str) -> None:
    """Token by token what the argmax of `forward` gives, for a prompt with an image and a region among others."""
    model = made(name)
    inputs = batch(model, (1,), (1,))
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)[0].tolist()
    ids, expected = inputs["input_ids"], []
    for _ in range(6):
        step = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        expected.append(int(model(**step).logits[0, -1].argmax()))
        ids = torch.cat([ids, torch.tensor([[expected[-1]]])], dim=1)
    assert tokens == expected
    other = {**inputs, "region_values": inputs["region_values"] * -3}
    with_other = model(**other).logits[0, -1]
    assert not torch.equal(with_other, model(**inputs).logits[0, -1])


@torch.no_grad()
def test_generate_in_a_batch_is_generate_alone() -> None:
    model = made("tiny-qwen2")
    long, short = batch(model, (1,), (1,)), batch(model, (0,), (0,))
    alone = [model.generate(**item, max_new_tokens=5, do_sample=False, eos_token_id=None) for item in (long, short)]
    gap = long["input_ids"].shape[1] - short["input_ids"].shape[1]
    both = {
        "input_ids": torch.cat([long["input_ids"], F.pad(short["input_ids"], (gap, 0))]),
        "attention_mask": torch.cat([long["attention_mask"], F.pad(short["attention_mask"], (gap, 0))]),
        "pixel_values": long["pixel_values"],
        "region_values": long["region_values"],
    }
    assert torch.equal(model.generate(**both, max_new_tokens=5, do_sample=False, eos_token_id=None), torch.cat(alone))


@pytest.mark.parametrize(("projector", "tokens"), [("conv_reduce", 9), ("linear", 25), ("mlp2x_gelu", 25)])
def test_projectors_give_as_many_tokens_as_said(projector: str, tokens: int) -> None:
    model = made("tiny-llama2", projector=projector)
    assert model.image_tokens == tokens
    assert model.image_features(torch.zeros(2, 3, 70, 70)).shape == (2, tokens, 32)


@pytest.mark.parametrize("layer", [-4, -3, -2, -1, 0, 1, 2, 3])
def test_the_tower_stops_at_the_selected_layer(layer: int) -> None:
    """Its hidden state is CLIP's, bit for bit, also in the backward pass; what stands behind it may be broken."""
    pixels = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))

    def features_and_gradient(*, whole: bool) -> tuple[torch.Tensor, torch.Tensor]:
        model = made("tiny-qwen2", select_layer=layer)
        if whole:
            states = model.vision_tower(pixels, output_hidden_states=True).hidden_states
            features = model.projector(states[layer][:, 1:])
        else:
            for behind in model.vision_tower.encoder.layers[layer % 4 :]:
                behind.forward = None
            features = model.image_features(pixels)
        features.square().sum().backward()
        return features, model.vision_tower.embeddings.patch_embedding.weight.grad

    for stopped, expected in zip(features_and_gradient(whole=False), features_and_gradient(whole=True), strict=True):
        assert torch.equal(stopped, expected)


def test_the_real_sizes_are_the_published_ones() -> None:
    """Parameters of the language models by their model cards, and 1,369 tokens an image."""
    millions = {
        "gemma2-2b": 2614,
        "gemma2-9b": 9242,
        "llama2-7b": 6738,
        "llama2-13b": 13016,
        "qwen2.5-3b": 3086,
        "qwen2.5-7b": 7616,
    }
    for name, expected in millions.items():
        with torch.device("meta"):
            model = GriffonForConditionalGeneration(preset_config(name))
        assert round(model.language_model.num_parameters() / 1e6) == expected, name
        assert model.image_tokens == 1369
        assert round(model.vision_tower.num_parameters() / 1e6) == 308  # ViT-L/14 with 5,330 positions
