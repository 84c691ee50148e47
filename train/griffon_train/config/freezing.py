"""Freezing: the flags that select the parts of a model that train, as in the reference. Does not import torch."""

from dataclasses import dataclass
from typing import Annotated

from griffon_shards.support.errors import SettingsError
from griffon_train.config.options import Option

PARTS = ("vision_tower", "projector", "language_model", "region_tower", "region_projector")
"""Attributes of the model, in the order of the forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """The reference's freezing flags. Later flags narrow down what earlier ones train."""

    tune_mm_mlp_adapter: Annotated[bool, Option("Train only the projector.")] = False
    tune_region_projector: Annotated[
        bool, Option("Train only the region projector.", reference_name="unshared_visual_encoder")
    ] = False
    freeze_llm: Annotated[bool, Option("Train only the projector and the vision tower.")] = False
    freeze_mm_mlp_adapter: Annotated[bool, Option("Freeze the projector.")] = False
    freeze_vision_tower: Annotated[bool, Option("Freeze the vision tower.")] = False

    def trained_parts(self) -> tuple[str, ...]:
        """The parts of `PARTS` that train; the region tower never does.

        Raises:
            SettingsError: the flags contradict each other, or nothing is left to train.
        """
        only = {
            "tune_mm_mlp_adapter": {"projector"},
            "tune_region_projector": {"region_projector"},
            "freeze_llm": {"vision_tower", "projector"},
        }
        given = [name for name in only if getattr(self, name)]
        if len(given) > 1:
            raise SettingsError(
                f"{' and '.join(given)} contradict each other: each selects the only parts that train; give one"
            )
        trained = only[given[0]] if given else set(PARTS) - {"region_tower"}
        frozen = {"projector": self.freeze_mm_mlp_adapter, "vision_tower": self.freeze_vision_tower}
        left = tuple(part for part in PARTS if part in trained and not frozen.get(part, False))
        if not left:
            raise SettingsError("nothing is left to train; remove one of the freezing flags")
        return left
