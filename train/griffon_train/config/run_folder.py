"""The names of the files in a run's output folder, and the settings in it."""

from pathlib import Path

import orjson

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.settings import Settings, settings_from_json

SETTINGS_NAME = "settings.json"
MODEL_NAME = "model"
PROJECTOR_NAME = "mm_projector.bin"
ADAPTER_NAME = "adapter"
"""A run's settings, and its result: the model, after alignment the projector alone, with LoRA the adapter."""

ADAPTER_BASE_NAME = "griffon_base.json"
"""In an adapter's folder, the file that says which model the adapter belongs to."""

CHECKPOINT_INDEX_NAME = "checkpoint.json"
"""In a checkpoint's folder, the index of what it holds."""

METRICS, TIMING, VALIDATION = "metrics.jsonl", "timing.jsonl", "validation.jsonl"
"""Log files of a run, with a line for each step; steps are numbered from 0."""

PROFILE = "profile"
"""Holds the traces of a run with `--profile-steps`."""

BEST_NAME = "best.json"
"""Names the best checkpoint of a run with `--keep-best`, relative to the run's folder."""


def result_name(settings: Settings) -> str:
    """The name of a run's result in its folder."""
    if settings.lora.enabled:
        return ADAPTER_NAME
    return PROJECTOR_NAME if settings.freezing.trained_parts() == ("projector",) else MODEL_NAME


def stored_settings(run: Path) -> Settings:
    """Read the settings of a run.

    Raises:
        SettingsError: the folder is not a run's output folder.
        DataError: the settings are damaged or from another version.
    """
    path = run / SETTINGS_NAME
    try:
        return settings_from_json(orjson.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise SettingsError(f"{run}: no {SETTINGS_NAME} in it; give the --output-dir of a run") from None
    except (orjson.JSONDecodeError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); restore it from a copy") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
