"""Loads the model and tokenizer that a run starts from: a preset, folders, or the result of an earlier run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import ModelSettings
from griffon_train.config.run_folder import MODEL_NAME, PROJECTOR_NAME, SETTINGS_NAME
from griffon_train.config.settings import Settings, option_name, settings_from_json
from griffon_train.given_folder import existing_folder
from griffon_train.model.attention import attention_of
from griffon_train.model.bin_tokens import add_bin_tokens, byte_tokenizer
from griffon_train.model.clip import load_tower
from griffon_train.model.config import GriffonConfig
from griffon_train.model.convert import load_projector
from griffon_train.model.deferred import drawn_later, forget, settle
from griffon_train.model.folders import is_saved_griffon
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import add_adapters, has_adapters, merge
from griffon_train.model.parts import load_language_model, load_whole, naming, undrawn
from griffon_train.model.presets import FAMILY_CHATS, PRESETS, preset_config
from griffon_train.model.projector import region_projector
from griffon_train.model.weight_files import WeightFiles, read_json
from griffon_train.text.tokenizer import load_tokenizer
from griffon_train.training.adapter_files import Adapter, adapter_folder, loading_base, read_adapter
from griffon_train.training.alignment_parts import can_be_compared, refuse_other_parts
from griffon_train.training.compatibility import refuse_unfit_settings
from griffon_train.training.starting_folder import check_starting_folder

_FOLDERS = ("model", "vision_tower", "region_tower", "tokenizer")
"""Settings that name the folders that a model is built from."""
_OF_NEW = ("projector", "select_layer")
"""Settings of a model that is built from parts; a saved model has them in its configuration."""


def load_model(
    settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load the untrained model onto the CPU, with its tokenizer. The result is deterministic.

    Raises:
        SettingsError: there is no such model, a part of it is missing or given twice, or settings do not fit it.
        DataError: weights or a configuration are damaged, or do not fit each other.
    """
    model, tokenizer = map_model(settings, dtype)
    _convert(model, dtype)
    return model, tokenizer


def map_model(
    settings: Settings, dtype: torch.dtype, *, draws: bool = True
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load the untrained model as `load_model` does, but leave its weights in the types that they are stored in.

    Weights that are stored in safetensors then stay mapped from their files. Those that are drawn, or are sums of
    weights and an adapter, are deferred (`griffon_train.model.deferred`).

    Args:
        settings: settings of the run.
        dtype: the type that the caller converts all weights to.
        draws: whether this process draws the random weights of a preset, and compares the weights with those that an
            alignment or an adapter was trained with; if not, a preset's weights are arbitrary, and another process
            does both.

    Raises:
        SettingsError, DataError: as for `load_model`.
    """
    given = settings.model
    torch.manual_seed(settings.data.seed)  # for weights that are in no checkpoint
    model, tokenizer = (
        _of_model(given, dtype, draws=draws) if settings.from_run is None else _of_run(settings, dtype, draws=draws)
    )
    if given.pretrain_mm_mlp_adapter is not None:
        with naming("--pretrain-mm-mlp-adapter"):
            _replace_projector(model, given.pretrain_mm_mlp_adapter, dtype)
    refuse_unfit_settings(model, tokenizer, settings)
    if given.boxes == "bin" and model.config.box_style != "bin":
        if settings.lora.enabled:
            raise SettingsError(
                "--boxes bin adds tokens to the model, whose embeddings would not train with LoRA; leave out --lora-r, "
                "or give a model that has them"
            )
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            settle(layer.parameters(), layer.weight.dtype)  # of which the new ones are means
        add_bin_tokens(model, tokenizer)
    attention = attention_of(model.config.get_text_config(), given.attention, model.language_model)
    try:
        model.set_attn_implementation(dict(attention))
    except (ImportError, ValueError) as error:
        raise SettingsError(f"--attention {given.attention}: {str(error).splitlines()[0]}") from None
    if settings.lora.enabled and not has_adapters(model):  # unless those of an earlier run train further
        add_adapters(model, settings.lora, settings.data.seed, dtype)
    return model, tokenizer


def _convert(model: GriffonForConditionalGeneration, dtype: torch.dtype) -> None:
    settle(model.parameters(), dtype)  # not the buffers: rotary frequencies need float32


def _replace_projector(model: GriffonForConditionalGeneration, path: Path, dtype: torch.dtype) -> None:
    """Load a projector in a type that loses nothing of it in `dtype`."""
    for parameter in model.projector.parameters():
        forget(parameter)
    model.projector.to(torch.promote_types(next(model.projector.parameters()).dtype, dtype))
    load_projector(model, path)


def default_chat(model: GriffonForConditionalGeneration) -> str:
    """The chat template that the model's family was released with.

    Raises:
        SettingsError: the family is unknown.
    """
    family = model.config.get_text_config().model_type
    if family not in FAMILY_CHATS:
        raise SettingsError(f"there is no default chat template for language models of type {family}; give --chat")
    return FAMILY_CHATS[family]


def unchecked_parts(settings: Settings) -> str | None:
    """A line where a run goes on from an alignment whose parts could not be compared with its own."""
    run = settings.from_run
    if run is None or (run / MODEL_NAME).is_dir() or adapter_folder(run) is not None or can_be_compared(run):
        return None
    return (
        f"--from {run} has no complete checkpoint, so nobody checked that its projector was aligned with this "
        "language model and this vision tower"
    )


def _of_run(
    settings: Settings, dtype: torch.dtype, *, draws: bool
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """The result of an earlier run: its model, or after alignment the model that it started from and its projector."""
    assert settings.from_run is not None
    run = settings.from_run
    check_starting_folder(run, settings.model)
    if (run / MODEL_NAME).is_dir():
        with naming("--from"):
            if not is_saved_griffon(run / MODEL_NAME):
                raise SettingsError(f"{run / MODEL_NAME}: not a Griffon model saved by a run; give another run")
        return _saved("--from", run / MODEL_NAME, settings.model, dtype)
    adapter = adapter_folder(run)
    if adapter is not None:
        return _of_adapter(read_adapter(adapter), settings, dtype, draws=draws)
    with naming("--from"):
        aligned_in = next((tensor.dtype for tensor in WeightFiles(run / PROJECTOR_NAME).values()), dtype)
    wide = torch.promote_types(aligned_in, dtype)  # of which both are roundings
    model, tokenizer = map_model(_began_with(run, settings), wide, draws=draws)
    if draws:
        refuse_other_parts(run, model, aligned_in)
    if settings.model.boxes == "bin":  # new embeddings are means of those in this type
        _convert(model, wide)
    with naming("--from"):
        _replace_projector(model, run / PROJECTOR_NAME, wide)
    for part in (model, model.language_model, model.vision_tower):
        part.config.dtype = dtype  # as it will be, not as it was read
    return model, tokenizer


def _of_adapter(
    adapter: Adapter, settings: Settings, dtype: torch.dtype, *, draws: bool
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """The base model of an adapter, with the adapter in it if it is to train further, else merged into it."""
    wide = torch.promote_types(adapter.dtype, dtype)  # of which both are roundings
    with loading_base(adapter):
        model, tokenizer = map_model(adapter.base_settings(settings.model), wide, draws=draws)
    if settings.lora.enabled:
        adapter.refuse_other_settings(settings.lora, model)
    adapter.put_into(model, dropout=settings.lora.lora_dropout, compare=draws)
    if not settings.lora.enabled:
        merge(model, wide)
    if settings.model.boxes == "bin":  # new embeddings are means of those in this type
        _convert(model, wide)
    for part in (model, model.language_model, model.vision_tower):
        part.config.dtype = dtype  # as it will be, not as it was read
    return model, tokenizer


def _began_with(run: Path, settings: Settings) -> Settings:
    """The settings of an earlier run that saved only its projector, overridden by folders given for this run.

    Raises:
        SettingsError: a folder that it started from is missing.
        DataError: its settings are damaged.
    """
    with naming("--from"):
        stored = read_json(run / SETTINGS_NAME)
    with naming(f"--from {run / SETTINGS_NAME}:"):
        earlier = settings_from_json(stored)
    given = {name: value for name in _FOLDERS if (value := getattr(settings.model, name)) is not None}
    if "model" in given and "vision_tower" not in given and _is_saved(given["model"]):
        before = earlier.model
        if before.model is not None and (before.vision_tower is not None or before.model in PRESETS):
            raise SettingsError(
                f"--from {run} would put its projector in the place of the one that --model {given['model']} has been "
                f"trained with; leave out --from to go on with that model, or give the one that {run} began with"
            )
        given["vision_tower"] = None  # the earlier run's was for its language model
    given |= {"attention": settings.model.attention, "pretrain_mm_mlp_adapter": None}
    earlier = replace(earlier, model=replace(earlier.model, **given))
    for name in (*_FOLDERS, "from_run"):
        path = getattr(earlier if name == "from_run" else earlier.model, name)
        if name not in given and path is not None and path not in PRESETS and not Path(path).exists():
            now = option_name("model" if name == "from_run" else name)
            raise SettingsError(
                f"--from {run} was started with {option_name(name)} {path}, which no longer exists; give its new "
                f"location with {now}"
            )
    return earlier


def _of_model(
    settings: ModelSettings, dtype: torch.dtype, *, draws: bool
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    assert settings.model is not None
    if settings.model in PRESETS:
        return _of_preset(settings.model, settings, draws=draws)
    if _is_saved(settings.model):
        if settings.vision_tower is not None:
            raise _has_already("vision_tower", f"--model {settings.model}", settings)
        return _saved("--model", Path(settings.model), settings, dtype)
    model = _joined(Path(settings.model), settings, dtype)
    if settings.region_tower is not None:
        _add_region_tower(model, settings.region_tower, dtype)
    return model, _tokenizer("--model", Path(settings.model), settings)


def _is_saved(given: str) -> bool:
    """Whether `--model` is a saved Griffon model rather than a language model."""
    if not Path(given).exists() and "/" not in given:
        raise SettingsError(f"--model {given}: neither a preset ({', '.join(PRESETS)}) nor a folder with a model")
    folder = existing_folder("--model", given)
    with naming("--model"):
        return is_saved_griffon(folder)


def _of_preset(
    name: str, settings: ModelSettings, *, draws: bool
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    if Path(name).is_dir():
        raise SettingsError(
            f"--model {name}: both a preset with random weights and a folder here; give ./{name} for the folder, or "
            "run in another directory for the preset"
        )
    for part in ("vision_tower", "region_tower"):
        if getattr(settings, part) is not None:
            raise _has_already(part, f"the preset {name}", settings)
    if settings.tokenizer is None and not PRESETS[name].byte_tokens:
        raise SettingsError(f"--model {name} has random weights and no tokenizer; give --tokenizer FOLDER")
    config = preset_config(name)
    for each, value in _new_model(settings).items():
        setattr(config, each, value)
    tokenizer = byte_tokenizer() if settings.tokenizer is None else load_tokenizer(settings.tokenizer)
    if not draws:
        return undrawn(GriffonForConditionalGeneration, config), tokenizer
    return drawn_later(lambda: GriffonForConditionalGeneration(config)), tokenizer


def _saved(
    option: str, folder: Path, settings: ModelSettings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    with naming(option):
        model: GriffonForConditionalGeneration = load_whole(
            GriffonForConditionalGeneration, folder, dtype, as_stored=_as_stored(settings)
        )
    if settings.region_tower is not None:
        if model.region_tower is not None:
            raise _has_already("region_tower", f"{option} {folder}", settings)
        _add_region_tower(model, settings.region_tower, dtype)
    return model, _tokenizer(option, folder, settings)


def _joined(folder: Path, settings: ModelSettings, dtype: torch.dtype) -> GriffonForConditionalGeneration:
    """Join a language model, a vision tower and a new projector."""
    if settings.vision_tower is None:
        raise SettingsError(f"--model {folder} is a language model without a vision tower; give --vision-tower FOLDER")
    tower_folder = existing_folder("--vision-tower", settings.vision_tower)
    with naming("--vision-tower"):
        tower = load_tower(tower_folder, dtype, as_stored=True)
    with naming("--model"):
        language_model = load_language_model(folder, dtype, as_stored=_as_stored(settings))
    config = GriffonConfig(  # shares the parts' configurations, so that changes apply to both
        text_config=language_model.config, vision_config=tower.config, **_new_model(settings)
    )
    with torch.device("meta"):
        model = GriffonForConditionalGeneration(config)
    model.language_model, model.vision_tower = language_model, tower
    model.generation_config = language_model.generation_config
    model.projector.to_empty(device="cpu")
    model.projector.apply(model._init_weights)
    return model


def _as_stored(settings: ModelSettings) -> bool:
    """Whether to leave a language model's weights as they are stored: not if embeddings are added, which are means."""
    return settings.boxes != "bin"


def _new_model(settings: ModelSettings) -> dict[str, Any]:
    """Configuration of a new model from the settings; GriffonConfig has defaults for the rest."""
    return {name: value for name in _OF_NEW if (value := getattr(settings, name)) is not None}


def _add_region_tower(model: GriffonForConditionalGeneration, folder: Path, dtype: torch.dtype) -> None:
    """Add a region tower and a new region projector to a model that has none."""
    existing_folder("--region-tower", folder)
    with naming("--region-tower"):
        tower = load_tower(folder, dtype, as_stored=True)
    model.config.region_config = tower.config
    model.region_tower = tower
    model.region_projector = region_projector(tower.config.hidden_size, model.config.get_text_config().hidden_size)


def _tokenizer(option: str, folder: Path, settings: ModelSettings) -> PreTrainedTokenizerBase:
    """The given tokenizer, or the model's."""
    if settings.tokenizer is None and not any(
        "token" in path.name or "vocab" in path.name for path in folder.iterdir()
    ):
        raise SettingsError(f"{option} {folder}: has no tokenizer; give --tokenizer FOLDER")
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(settings.tokenizer or folder)
    return tokenizer


def _has_already(part: str, what: str, settings: ModelSettings) -> SettingsError:
    option = option_name(part)
    return SettingsError(f"{option} {getattr(settings, part)}: {what} has its own; leave out {option}")
