"""The configuration of the model that a run would load, from configuration files alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import ModelSettings
from griffon_train.config.run_folder import MODEL_NAME, stored_settings
from griffon_train.config.settings import Settings
from griffon_train.given_folder import existing_folder
from griffon_train.model.bin_tokens import BIN_TOKENS
from griffon_train.model.clip import read_tower_config
from griffon_train.model.config import GriffonConfig
from griffon_train.model.folders import is_saved_griffon
from griffon_train.model.parts import making_model, naming
from griffon_train.model.presets import PRESETS, preset_config
from griffon_train.training.adapter_files import adapter_folder, loading_base, read_adapter
from griffon_train.training.starting_folder import check_starting_folder


def described_config(settings: Settings) -> GriffonConfig:
    """Read the configuration of the model that `griffon_train.training.model_loading.load_model` would load.

    Raises:
        SettingsError: there is no such model, or a part of it is missing.
        DataError: a configuration is damaged.
    """
    config = _of_run(settings) if settings.from_run is not None else _of_model(settings.model)
    if settings.model.boxes == "bin" and config.box_style != "bin":
        text = config.get_text_config()
        text.vocab_size += len(BIN_TOKENS)
    return config


def _of_run(settings: Settings) -> GriffonConfig:
    assert settings.from_run is not None
    run = settings.from_run
    check_starting_folder(run, settings.model)
    if (run / MODEL_NAME).is_dir():
        return _with_region_tower(_saved("--from", run / MODEL_NAME), settings.model)
    folder = adapter_folder(run)
    if folder is not None:
        adapter = read_adapter(folder)
        with loading_base(adapter):
            return described_config(adapter.base_settings(settings.model))
    with naming("--from"):
        earlier = stored_settings(run)
    given = {
        name: value
        for name in ("model", "vision_tower", "region_tower")
        if (value := getattr(settings.model, name)) is not None
    }
    return described_config(replace(earlier, model=replace(earlier.model, **given)))


def _of_model(settings: ModelSettings) -> GriffonConfig:
    if settings.model is None:
        raise SettingsError("--model (or --from): missing; give a preset, or the folder of a model")
    if settings.model in PRESETS:
        return _new(preset_config(settings.model), settings)
    if not Path(settings.model).exists() and "/" not in settings.model:
        raise SettingsError(
            f"--model {settings.model}: neither a preset ({', '.join(PRESETS)}) nor a folder with a model"
        )
    folder = existing_folder("--model", settings.model)
    with naming("--model"):
        saved = is_saved_griffon(folder)
    if saved:
        return _with_region_tower(_saved("--model", folder), settings)
    if settings.vision_tower is None:
        raise SettingsError(f"--model {folder} is a language model without a vision tower; give --vision-tower FOLDER")
    with naming("--model"), making_model(folder):
        text: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    with naming("--vision-tower"):
        vision = read_tower_config(existing_folder("--vision-tower", settings.vision_tower))
    return _with_region_tower(_new(GriffonConfig(text_config=text, vision_config=vision), settings), settings)


def _saved(option: str, folder: Path) -> GriffonConfig:
    with naming(option), making_model(folder):
        config: GriffonConfig = GriffonConfig.from_pretrained(folder, local_files_only=True)
    return config


def _new(config: GriffonConfig, settings: ModelSettings) -> GriffonConfig:
    for name in ("projector", "select_layer"):
        if getattr(settings, name) is not None:
            setattr(config, name, getattr(settings, name))
    return config


def _with_region_tower(config: GriffonConfig, settings: ModelSettings) -> GriffonConfig:
    if settings.region_tower is not None:
        with naming("--region-tower"):
            tower: Any = read_tower_config(existing_folder("--region-tower", settings.region_tower))
        config.region_config = tower
    return config
