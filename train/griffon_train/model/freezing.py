"""Freeze the parts that do not train, and count the parameters that do."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from griffon_shards.support.errors import SettingsError
from griffon_train.config.freezing import PARTS, Freezing
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import adapter_weights

__all__ = ["PARTS", "Freezing", "freeze", "parameter_counts"]


def freeze(model: GriffonForConditionalGeneration, freezing: Freezing) -> None:
    """Set which parameters train. Of a language model with LoRA adapters, these are the adapters.

    Layers of the vision tower after the selected hidden state get no gradient. They are always frozen, so that the
    optimizer holds no moments for them.

    Raises:
        SettingsError: the flags leave nothing to train, or name a part that the model lacks.
    """
    trained = freezing.trained_parts()
    if freezing.tune_region_projector and model.region_projector is None:
        raise SettingsError("the model has no region projector to train; give it one with --region-tower")
    model.requires_grad_(False)
    for name in trained:
        part = getattr(model, name)
        if part is not None:
            part.requires_grad_(True)
    adapters = adapter_weights(model.language_model)
    if adapters:
        model.language_model.requires_grad_(False)
    for parameter in adapters.values():
        parameter.requires_grad_(True)
    tower: Any = model.vision_tower
    states = len(tower.encoder.layers) + 1
    for layer in tower.encoder.layers[model.config.select_layer % states :]:
        layer.requires_grad_(False)
    tower.post_layernorm.requires_grad_(False)


def parameter_counts(model: nn.Module) -> Mapping[str, tuple[int, int]]:
    """Return, for each part that the model has, the numbers of all and of trained parameters, also under ZeRO-3."""
    counts = {}
    for name in PARTS:
        part = getattr(model, name, None)
        if part is not None:
            sizes = [
                (getattr(tensor, "ds_numel", tensor.numel()), tensor.requires_grad) for tensor in part.parameters()
            ]
            counts[name] = (sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains))
    return counts
