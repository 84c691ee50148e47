"""The model and tokenizer that a run begins with, from whatever it was told: a preset, folders, or an earlier run."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.config.settings import Settings, option_name, settings_from_json
from griffon_train.given_folder import existing_folder
from griffon_train.model.attention import attention_of
from griffon_train.model.bin_tokens import add_bin_tokens, byte_tokenizer
from griffon_train.model.clip import load_tower
from griffon_train.model.config import GriffonConfig
from griffon_train.model.convert import load_projector
from griffon_train.model.folders import is_saved_griffon
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.parts import load_language_model, load_whole, naming
from griffon_train.model.presets import FAMILY_CHATS, PRESETS, preset_config
from griffon_train.model.projector import region_projector
from griffon_train.model.weight_files import WeightFiles, read_json
from griffon_train.text.tokenizer import load_tokenizer
from griffon_train.training.alignment_parts import can_be_compared, refuse_other_parts
from griffon_train.training.compatibility import refuse_unfit_settings

SETTINGS_NAME = "settings.json"
MODEL_NAME = "model"
PROJECTOR_NAME = "mm_projector.bin"
"""What a run leaves in its folder: how it was made, and what came out; of alignment the projector alone."""

_FOLDERS = ("model", "vision_tower", "region_tower", "tokenizer")
"""Settings that name what a model is made of."""
_OF_NEW = ("projector", "select_layer")
"""Settings of a model that is made of parts; a saved one has them in its configuration."""


def load_model(
    settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model on the CPU, before any training of this run, and its tokenizer; the same every time.

    Raises:
        SettingsError: there is no such model, a part of it is missing or given twice, or settings do not fit it.
        DataError: weights or a configuration are damaged, or do not fit each other.
    """
    torch.manual_seed(settings.seed)  # what no checkpoint gives begins as the seed has it
    model, tokenizer = _of_model(settings, dtype) if settings.from_run is None else _of_run(settings, dtype)
    if settings.pretrain_mm_mlp_adapter is not None:
        with naming("--pretrain-mm-mlp-adapter"):
            load_projector(model, settings.pretrain_mm_mlp_adapter)
    refuse_unfit_settings(model, tokenizer, settings)
    if settings.boxes == "bin" and model.config.box_style != "bin":
        add_bin_tokens(model, tokenizer)
    attention = attention_of(model.config.get_text_config(), settings.attention, model.language_model)
    try:
        model.set_attn_implementation(dict(attention))
    except (ImportError, ValueError) as error:
        raise SettingsError(f"--attention {settings.attention}: {str(error).splitlines()[0]}") from None
    for parameter in model.parameters():  # not the buffers: rotary frequencies rounded to bfloat16 would be others
        parameter.data = parameter.data.to(dtype)
    return model, tokenizer


def placed(settings: Settings) -> Settings:
    """Settings whose paths are absolute, so that they name the same things wherever they are read again.

    What is not there stays as it is given, for the message that it is not.
    """
    found: dict[str, Any] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if isinstance(value, Path) and value.exists():
            found[each.name] = _absolute(value)
        elif isinstance(value, tuple):
            found[each.name] = tuple(_absolute(one) if isinstance(one, Path) and one.exists() else one for one in value)
    if settings.model is not None and settings.model not in PRESETS and Path(settings.model).is_dir():
        found["model"] = str(_absolute(Path(settings.model)))
    return replace(settings, **found)


def _absolute(path: Path) -> Path:
    """Without `..`, so that one folder has one spelling; links stay, for they may lead elsewhere on another machine."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def default_chat(model: GriffonForConditionalGeneration) -> str:
    """The template that the model's family was released with.

    Raises:
        SettingsError: the family is none that we know.
    """
    family = model.config.get_text_config().model_type
    if family not in FAMILY_CHATS:
        raise SettingsError(f"language models of type {family} have no chat template of their own here; give --chat")
    return FAMILY_CHATS[family]


def unchecked_parts(settings: Settings) -> str | None:
    """A line where a run goes on from an alignment whose parts could not be compared with its own."""
    run = settings.from_run
    if run is None or (run / MODEL_NAME).is_dir() or can_be_compared(run):
        return None
    return (
        f"--from {run} has no complete checkpoint, so nobody checked that its projector was aligned with this "
        "language model and this vision tower"
    )


def _of_run(settings: Settings, dtype: torch.dtype) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """What an earlier run ended with: its model; or after alignment what that began with, and its projector."""
    assert settings.from_run is not None
    run = existing_folder("--from", settings.from_run)
    if (run / MODEL_NAME).is_dir():
        given = [option_name(name) for name in ("model", "vision_tower") if getattr(settings, name) is not None]
        if given:
            raise SettingsError(f"--from {run} has a model with all its parts already; leave out {' and '.join(given)}")
        with naming("--from"):
            if not is_saved_griffon(run / MODEL_NAME):
                raise SettingsError(f"{run / MODEL_NAME}: not a Griffon model, as a run leaves it; give another run")
        return _saved("--from", run / MODEL_NAME, settings, dtype)
    if not (run / PROJECTOR_NAME).is_file():
        hint = f"; it holds a model, give it as --model {run}" if (run / "config.json").is_file() else ""
        raise SettingsError(
            f"--from {run}: it holds neither {MODEL_NAME}/ nor {PROJECTOR_NAME}{hint or '; has that run ended?'}"
        )
    with naming("--from"):
        aligned_in = next((tensor.dtype for tensor in WeightFiles(run / PROJECTOR_NAME).values()), dtype)
    wide = torch.promote_types(aligned_in, dtype)  # of which both are roundings
    model, tokenizer = load_model(_began_with(run, settings), wide)
    refuse_other_parts(run, model, aligned_in)
    with naming("--from"):
        load_projector(model, run / PROJECTOR_NAME)
    for part in (model, model.language_model, model.vision_tower):
        part.config.dtype = dtype  # as it will be, not as it was read
    return model, tokenizer


def _began_with(run: Path, settings: Settings) -> Settings:
    """The settings of an earlier run that left only its projector; what is given for this run holds for it, too.

    Raises:
        SettingsError: a folder that it began with has moved.
        DataError: its settings are damaged.
    """
    with naming("--from"):
        stored = read_json(run / SETTINGS_NAME)
    with naming(f"--from {run / SETTINGS_NAME}:"):
        earlier = settings_from_json(stored)
    given = {name: value for name in _FOLDERS if (value := getattr(settings, name)) is not None}
    if "model" in given and "vision_tower" not in given and _is_saved(given["model"]):
        if earlier.model is not None and (earlier.vision_tower is not None or earlier.model in PRESETS):
            raise SettingsError(
                f"--from {run} would put its projector in the place of the one that --model {given['model']} has been "
                f"trained with; leave out --from to go on with that model, or give the one that {run} began with"
            )
        given["vision_tower"] = None  # the earlier run's was for its language model
    earlier = replace(earlier, attention=settings.attention, pretrain_mm_mlp_adapter=None, **given)
    for name in (*_FOLDERS, "from_run"):
        path = getattr(earlier, name)
        if name not in given and path is not None and path not in PRESETS and not Path(path).exists():
            now = option_name("model" if name == "from_run" else name)
            raise SettingsError(
                f"--from {run} began with {option_name(name)} {path}, which is not there any more; say where it is "
                f"now with {now}"
            )
    return earlier


def _of_model(
    settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    assert settings.model is not None
    if settings.model in PRESETS:
        return _of_preset(settings.model, settings)
    if _is_saved(settings.model):
        if settings.vision_tower is not None:
            raise _has_already("vision_tower", f"--model {settings.model}", settings)
        return _saved("--model", Path(settings.model), settings, dtype)
    model = _joined(Path(settings.model), settings, dtype)
    if settings.region_tower is not None:
        _add_region_tower(model, settings.region_tower, dtype)
    return model, _tokenizer("--model", Path(settings.model), settings)


def _is_saved(given: str) -> bool:
    """Whether `--model` is a saved Griffon model; else it is a language model."""
    if not Path(given).exists() and "/" not in given:
        raise SettingsError(f"--model {given}: neither one of {', '.join(PRESETS)}, nor a folder with a model in it")
    folder = existing_folder("--model", given)
    with naming("--model"):
        return is_saved_griffon(folder)


def _of_preset(name: str, settings: Settings) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    if Path(name).is_dir():
        raise SettingsError(
            f"--model {name}: a preset with random weights, and a folder here; give ./{name} for the folder, or run "
            "from elsewhere for the preset"
        )
    for part in ("vision_tower", "region_tower"):
        if getattr(settings, part) is not None:
            raise _has_already(part, f"the preset {name}", settings)
    if settings.tokenizer is None and not PRESETS[name].tiny:
        raise SettingsError(f"--model {name} has random weights and no tokenizer; give --tokenizer FOLDER")
    config = preset_config(name)
    for each, value in _new_model(settings).items():
        setattr(config, each, value)
    tokenizer = byte_tokenizer() if settings.tokenizer is None else load_tokenizer(settings.tokenizer)
    return GriffonForConditionalGeneration(config), tokenizer


def _saved(
    option: str, folder: Path, settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    with naming(option):
        model: GriffonForConditionalGeneration = load_whole(GriffonForConditionalGeneration, folder, dtype)
    if settings.region_tower is not None:
        if model.region_tower is not None:
            raise _has_already("region_tower", f"{option} {folder}", settings)
        _add_region_tower(model, settings.region_tower, dtype)
    return model, _tokenizer(option, folder, settings)


def _joined(folder: Path, settings: Settings, dtype: torch.dtype) -> GriffonForConditionalGeneration:
    """A language model, a tower, and a projector that has not learned anything yet."""
    if settings.vision_tower is None:
        raise SettingsError(f"--model {folder} is a language model that cannot see; give --vision-tower FOLDER, too")
    tower_folder = existing_folder("--vision-tower", settings.vision_tower)
    with naming("--vision-tower"):
        tower = load_tower(tower_folder, dtype)
    with naming("--model"):
        language_model = load_language_model(folder, dtype)
    config = GriffonConfig(  # the parts' own configurations, not copies: what changes in one has to change in both
        text_config=language_model.config, vision_config=tower.config, **_new_model(settings)
    )
    with torch.device("meta"):
        model = GriffonForConditionalGeneration(config)
    model.language_model, model.vision_tower = language_model, tower
    model.generation_config = language_model.generation_config
    model.projector.to_empty(device="cpu")
    model.projector.apply(model._init_weights)
    return model


def _new_model(settings: Settings) -> dict[str, Any]:
    """What settings say of a model that is made here; the configuration has defaults for the rest."""
    return {name: value for name in _OF_NEW if (value := getattr(settings, name)) is not None}


def _add_region_tower(model: GriffonForConditionalGeneration, folder: Path, dtype: torch.dtype) -> None:
    """Give a model that has none the tower for `<region>`, and a projector that has not learned anything yet."""
    existing_folder("--region-tower", folder)
    with naming("--region-tower"):
        tower = load_tower(folder, dtype)
    model.config.region_config = tower.config
    model.region_tower = tower
    model.region_projector = region_projector(tower.config.hidden_size, model.config.get_text_config().hidden_size)


def _tokenizer(option: str, folder: Path, settings: Settings) -> PreTrainedTokenizerBase:
    """The one that is given, or the model's."""
    if settings.tokenizer is None and not any(
        "token" in path.name or "vocab" in path.name for path in folder.iterdir()
    ):
        raise SettingsError(f"{option} {folder}: has no tokenizer; give --tokenizer FOLDER")
    found: PreTrainedTokenizerBase = load_tokenizer(settings.tokenizer or folder)
    return found


def _has_already(part: str, what: str, settings: Settings) -> SettingsError:
    option = option_name(part)
    return SettingsError(f"{option} {getattr(settings, part)}: {what} has its own; leave out {option}")
