"""Paths of a run's settings that can be read from any working directory."""

import os
from pathlib import Path
from typing import Any

from griffon_train.config.settings import Settings, from_values, values_of
from griffon_train.model.presets import PRESETS


def placed(settings: Settings) -> Settings:
    """Make the paths of settings absolute, so that a later run can read them from any working directory.

    Paths that do not exist stay as they are given, for the error message.
    """
    values = values_of(settings)
    absolute: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Path) and value.exists():
            absolute[name] = _absolute(value)
        elif isinstance(value, tuple):
            absolute[name] = tuple(
                _absolute(item) if isinstance(item, Path) and item.exists() else item for item in value
            )
    model = settings.model.model
    if model is not None and model not in PRESETS and Path(model).is_dir():
        absolute["model"] = str(_absolute(Path(model)))
    return from_values(values | absolute)


def _absolute(path: Path) -> Path:
    """An absolute path without `..`; symbolic links stay, as their targets may differ on another machine."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links
