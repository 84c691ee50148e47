"""Each flag trains the right parameters, shown by those that a step of the optimizer changes."""

import pytest
import torch

from griffon_shards.support.errors import SettingsError
from griffon_train.model.freezing import PARTS, Freezing, freeze, parameter_counts
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config


def changed_parts(freezing: Freezing) -> set[str]:
    """Parts that a step changes, on a sample with an image and a region."""
    torch.manual_seed(0)
    model = GriffonForConditionalGeneration(preset_config("tiny-llama2"))
    freeze(model, freezing)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1.0)
    ids = torch.tensor([[1, *[-200] * 9, 7, -201, 8, 9]])
    pixels, region = torch.randn(1, 3, 70, 70), torch.randn(1, 3, 28, 28)
    model(ids, pixel_values=pixels, region_values=region, labels=ids.clamp(min=0)).loss.backward()
    optimizer.step()
    return {
        name.partition(".")[0]
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }


@pytest.mark.parametrize(
    ("freezing", "parts"),
    [
        (Freezing(), {"vision_tower", "projector", "language_model", "region_projector"}),
        (Freezing(tune_mm_mlp_adapter=True), {"projector"}),
        (Freezing(tune_region_projector=True), {"region_projector"}),
        (Freezing(freeze_llm=True), {"vision_tower", "projector"}),
        (Freezing(freeze_llm=True, freeze_vision_tower=True), {"projector"}),
        (Freezing(freeze_mm_mlp_adapter=True), {"vision_tower", "language_model", "region_projector"}),
        (Freezing(freeze_vision_tower=True), {"projector", "language_model", "region_projector"}),
    ],
)
def test_only_what_trains_changes(freezing: Freezing, parts: set[str]) -> None:
    assert changed_parts(freezing) == parts
    assert set(freezing.trained_parts()) == parts


@pytest.mark.parametrize(
    ("freezing", "message"),
    [
        (Freezing(tune_mm_mlp_adapter=True, freeze_llm=True), "tune_mm_mlp_adapter and freeze_llm contradict"),
        (Freezing(tune_mm_mlp_adapter=True, freeze_mm_mlp_adapter=True), "nothing is left to train"),
        (Freezing(freeze_llm=True, freeze_mm_mlp_adapter=True, freeze_vision_tower=True), "nothing is left to train"),
    ],
)
def test_contradictions_are_refused(freezing: Freezing, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        freezing.trained_parts()


def test_a_region_projector_that_does_not_exist_cannot_train() -> None:
    model = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    with pytest.raises(SettingsError, match="no region projector to train"):
        freeze(model, Freezing(tune_region_projector=True))


def test_layers_after_the_selected_state_never_train() -> None:
    """They get no gradient; moments for them would be a waste, and decay would wear them away."""
    model = GriffonForConditionalGeneration(preset_config("tiny-llama2"))
    freeze(model, Freezing())
    frozen = {name for name, parameter in model.vision_tower.named_parameters() if not parameter.requires_grad}
    assert {name.rsplit(".", 1)[0] for name in frozen} >= {"encoder.layers.2.mlp.fc1", "post_layernorm"}
    assert not any(name.startswith(("encoder.layers.0", "encoder.layers.1", "embeddings")) for name in frozen)


def test_counts_are_by_part() -> None:
    model = GriffonForConditionalGeneration(preset_config("tiny-llama2"))
    freeze(model, Freezing(tune_mm_mlp_adapter=True))
    counts = parameter_counts(model)
    assert set(counts) == set(PARTS)
    assert sum(total for total, _ in counts.values()) == model.num_parameters()
    assert {part for part, (_, trains) in counts.items() if trains} == {"projector"}
