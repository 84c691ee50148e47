"""Whether a model is made of the parts that an alignment trained its projector with; to others it means nothing."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from griffon_shards.support.errors import SettingsError
from griffon_train.training.checkpoint_folders import latest_index
from griffon_train.training.checkpoints import sha256_of_value

_PARTS = {"language_model": "--model", "vision_tower": "--vision-tower"}
"""What a projector lies between, and the options that say where it is."""


def refuse_other_parts(run: Path, model: nn.Module, dtype: torch.dtype) -> None:
    """Compare a model with the frozen weights of an alignment, as its latest checkpoint recorded them.

    Args:
        run: the alignment's folder; without a checkpoint nothing can be compared.
        model: its weights have the alignment's dtype or a wider one, or are those that were rounded to it.
        dtype: the alignment's.

    Raises:
        SettingsError: the language model or the vision tower has other weights.
    """
    before = _frozen_sha256(run)
    if before is None:
        return
    weights = dict(model.named_parameters())
    for part, option in _PARTS.items():
        recorded = {name: sha256 for name, sha256 in before.items() if name.startswith(f"{part}.")}
        others = {name for name in weights if name.startswith(f"{part}.")} ^ recorded.keys()
        others |= {
            name
            for name, sha256 in recorded.items()
            if name not in others and sha256_of_value(weights[name], dtype) != sha256
        }
        if others:
            raise SettingsError(
                f"--from {run}: its projector was aligned with another {part.replace('_', ' ')}: {len(others):,} "
                f"weights differ, such as {min(others)}; give the one of that run with {option}, or align anew with "
                "this one"
            )


def can_be_compared(run: Path) -> bool:
    """Whether an alignment has a complete checkpoint left to compare with."""
    return _frozen_sha256(run) is not None


def _frozen_sha256(run: Path) -> Mapping[str, str] | None:
    index = latest_index(run)
    return None if index is None else index["frozen_sha256"]
