"""Freezing what does not train, and the counts of what does."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from griffon_shards.support.errors import SettingsError
from griffon_train.config.freezing import PARTS, Freezing
from griffon_train.model.griffon import GriffonForConditionalGeneration

__all__ = ["PARTS", "Freezing", "freeze", "parameter_counts"]


def freeze(model: GriffonForConditionalGeneration, freezing: Freezing) -> None:
    """Set what trains.

    Layers of the vision tower behind the selected hidden state see no gradient; they never train, so that no optimizer
    holds moments for them.

    Raises:
        SettingsError: the flags leave nothing to train, or name a part that the model has not.
    """
    trained = freezing.trained_parts()
    if freezing.tune_region_projector and model.region_projector is None:
        raise SettingsError("the model has no region projector to train; give it one with --region-tower")
    model.requires_grad_(False)
    for name in trained:
        part = getattr(model, name)
        if part is not None:
            part.requires_grad_(True)
    tower: Any = model.vision_tower
    states = len(tower.encoder.layers) + 1
    for layer in tower.encoder.layers[model.config.select_layer % states :]:
        layer.requires_grad_(False)
    tower.post_layernorm.requires_grad_(False)


def parameter_counts(model: nn.Module) -> Mapping[str, tuple[int, int]]:
    """Parameters of each part that is there, and how many of them train; also where ZeRO-3 holds only a share."""
    counts = {}
    for name in PARTS:
        part = getattr(model, name, None)
        if part is not None:
            sizes = [(getattr(each, "ds_numel", each.numel()), each.requires_grad) for each in part.parameters()]
            counts[name] = (sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains))
    return counts
