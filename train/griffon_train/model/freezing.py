"""Which parts of a model train, with the reference's meaning of its flags, and a table that shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from griffon_shards.errors import SettingsError
from griffon_train.model.griffon import GriffonForConditionalGeneration

PARTS = ("vision_tower", "projector", "language_model", "region_tower", "region_projector")
"""Attributes of the model, in the order of the way through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """What is frozen; the reference's flags, applied in its order, so that a later one takes from an earlier.

    Attributes:
        tune_mm_mlp_adapter: only the projector trains (alignment).
        tune_region_projector: only the region projector trains (visual referring).
        freeze_llm: only projector and vision tower train.
        freeze_mm_mlp_adapter: the projector does not.
        freeze_vision_tower: the vision tower does not.
    """

    tune_mm_mlp_adapter: bool = False
    tune_region_projector: bool = False
    freeze_llm: bool = False
    freeze_mm_mlp_adapter: bool = False
    freeze_vision_tower: bool = False

    def trained_parts(self) -> tuple[str, ...]:
        """The parts that train, of `PARTS`; the region tower never does.

        Raises:
            SettingsError: the flags contradict each other, or leave nothing to train.
        """
        only = {
            "tune_mm_mlp_adapter": {"projector"},
            "tune_region_projector": {"region_projector"},
            "freeze_llm": {"vision_tower", "projector"},
        }
        given = [name for name in only if getattr(self, name)]
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)} contradict each other: each says what trains alone; give one")
        trained = only[given[0]] if given else set(PARTS) - {"region_tower"}
        frozen = {"projector": self.freeze_mm_mlp_adapter, "vision_tower": self.freeze_vision_tower}
        left = tuple(part for part in PARTS if part in trained and not frozen.get(part, False))
        if not left:
            raise SettingsError(f"nothing is left to train: {self}; take back one of the freezing flags")
        return left


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
