"""Weights that are drawn later are those that are drawn at once, and take no memory until then."""

import pytest
import torch
from torch import nn

from griffon_train.model.deferred import defer, drawn_later, forget, is_deferred, settle, value_of
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config


@pytest.mark.parametrize("name", ["tiny-gemma2", "tiny-llama2", "tiny-qwen2", "small-qwen2"])
@pytest.mark.parametrize("projector", ["conv_reduce", "mlp2x_gelu"])
def test_a_model_that_is_drawn_later_is_the_same_model(name: str, projector: str) -> None:
    config = preset_config(name)
    config.projector = projector
    torch.manual_seed(3)
    expected = GriffonForConditionalGeneration(config)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    model = drawn_later(lambda: GriffonForConditionalGeneration(config))
    assert torch.equal(torch.get_rng_state(), after)
    weights = dict(model.named_parameters())
    drawn = [weight for weight in expected.parameters() if len(set(weight.flatten()[:9].tolist())) > 1]
    assert sum(map(is_deferred, weights.values())) >= len(drawn) > 50
    for weight_name, weight in reversed(weights.items()):  # in any order, and as often as one likes
        wanted = expected.get_parameter(weight_name)
        assert torch.equal(value_of(weight, torch.float32), wanted), weight_name
        assert torch.equal(value_of(weight, torch.bfloat16), wanted.to(torch.bfloat16)), weight_name
    assert torch.equal(torch.get_rng_state(), after)
    for buffer_name, buffer in expected.named_buffers():
        assert torch.equal(model.get_buffer(buffer_name), buffer), buffer_name
    settle(model.parameters(), torch.float32)
    assert not any(map(is_deferred, model.parameters()))
    assert all(torch.equal(weight, expected.get_parameter(each)) for each, weight in model.named_parameters())


def test_until_it_is_needed_a_weight_takes_no_memory() -> None:
    layer = drawn_later(lambda: nn.Linear(1024, 1024))
    pages = layer.weight.data[8:-8]
    assert not pages.any()  # the system gives back zeros for pages that were taken out of memory
    assert bool(value_of(layer.weight, torch.float32).all())


def test_what_is_computed_from_a_deferred_value() -> None:
    (weight, _) = drawn_later(lambda: nn.Linear(4, 4)).parameters()
    drawn = value_of(weight, torch.float32).clone()
    defer(weight, lambda held: held + 1)
    defer(weight, lambda held: held * 2)
    assert torch.equal(value_of(weight, torch.float32), (drawn + 1) * 2)
    weight.data = torch.ones(4, 4)
    forget(weight)
    assert torch.equal(value_of(weight, torch.float32), torch.ones(4, 4))
