"""Which parts of a model train, with the reference's meaning of its flags. Without torch, for the command line."""

from dataclasses import dataclass

from griffon_shards.support.errors import SettingsError

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
            raise SettingsError("nothing is left to train; take back one of the freezing flags")
        return left
