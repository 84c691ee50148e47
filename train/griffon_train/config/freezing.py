"""Which parts of a model train; the flags mean the same as in the reference. Does not import torch."""

from dataclasses import dataclass

from griffon_shards.support.errors import SettingsError

PARTS = ("vision_tower", "projector", "language_model", "region_tower", "region_projector")
"""Attributes of the model, in the order of the forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezing:
    """The reference's freezing flags. Later flags narrow down what earlier ones train.

    Attributes:
        tune_mm_mlp_adapter: only the projector trains (alignment).
        tune_region_projector: only the region projector trains (visual referring).
        freeze_llm: only the projector and the vision tower train.
        freeze_mm_mlp_adapter: the projector does not train.
        freeze_vision_tower: the vision tower does not train.
    """

    tune_mm_mlp_adapter: bool = False
    tune_region_projector: bool = False
    freeze_llm: bool = False
    freeze_mm_mlp_adapter: bool = False
    freeze_vision_tower: bool = False

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
