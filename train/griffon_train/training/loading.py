"""The model and tokenizer that a run begins with, from whatever it was told: a preset, folders, or an earlier run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionModel,
    PreTrainedTokenizerBase,
)

from griffon_shards.errors import SettingsError
from griffon_train.model.attention import attention_of
from griffon_train.model.config import GriffonConfig
from griffon_train.model.convert import load_projector
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import FAMILY_CHATS, PRESETS, preset_config
from griffon_train.model.projector import region_projector
from griffon_train.model.tokens import add_bin_tokens, byte_tokenizer
from griffon_train.settings import Settings, settings_from_json
from griffon_train.tokenizer_folder import load_tokenizer

SETTINGS_NAME = "settings.json"
MODEL_NAME = "model"
PROJECTOR_NAME = "mm_projector.bin"
"""What a run leaves in its folder: how it was made, and what came out; of alignment the projector alone."""


def load_model(
    settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model on the CPU, before any training of this run, and its tokenizer; the same every time.

    Raises:
        SettingsError: there is no such model, or a part of it is missing.
    """
    torch.manual_seed(settings.seed)  # what no checkpoint gives begins as the seed has it
    if settings.from_run is not None:
        model, tokenizer = _of_run(settings.from_run, settings, dtype)
    else:
        model, tokenizer = _of_model(settings, dtype)
    if settings.region_tower is not None and model.region_tower is None:
        _add_region_tower(model, settings.region_tower, dtype)
    if settings.pretrain_mm_mlp_adapter is not None:
        load_projector(model, settings.pretrain_mm_mlp_adapter)
    if settings.boxes == "bin" and model.config.box_style != "bin":
        add_bin_tokens(model, tokenizer)
    model.set_attn_implementation(dict(attention_of(model.config.get_text_config(), settings.attention)))
    for parameter in model.parameters():  # not the buffers: rotary frequencies rounded to bfloat16 would be others
        parameter.data = parameter.data.to(dtype)
    return model, tokenizer


def default_chat(model: GriffonForConditionalGeneration) -> str:
    """The template that the model's family was released with.

    Raises:
        SettingsError: the family is none that we know.
    """
    family = model.config.get_text_config().model_type
    if family not in FAMILY_CHATS:
        raise SettingsError(f"language models of type {family} have no chat template of their own here; give --chat")
    return FAMILY_CHATS[family]


def _of_run(
    run: Path, settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """What an earlier run ended with."""
    if (run / MODEL_NAME / "config.json").is_file():
        return _saved(run / MODEL_NAME, settings, dtype)
    if not (run / PROJECTOR_NAME).is_file():
        raise SettingsError(f"--from {run}: it holds neither {MODEL_NAME}/ nor {PROJECTOR_NAME}; has that run ended?")
    earlier = settings_from_json(orjson.loads((run / SETTINGS_NAME).read_bytes()))
    # What was given for this run holds for it; of the earlier one counts what it began with.
    earlier = replace(earlier, attention=settings.attention, tokenizer=settings.tokenizer or earlier.tokenizer)
    model, tokenizer = load_model(earlier, dtype)
    load_projector(model, run / PROJECTOR_NAME)
    return model, tokenizer


def _of_model(
    settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    assert settings.model is not None
    if settings.model in PRESETS:
        config = preset_config(settings.model)
        config.projector, config.select_layer = settings.projector, settings.select_layer
        if settings.tokenizer is None and not PRESETS[settings.model].tiny:
            raise SettingsError(
                f"--model {settings.model} has random weights and no tokenizer; give --tokenizer FOLDER"
            )
        tokenizer = byte_tokenizer() if settings.tokenizer is None else load_tokenizer(settings.tokenizer)
        return GriffonForConditionalGeneration(config), tokenizer
    folder = Path(settings.model)
    if not (folder / "config.json").is_file():
        raise SettingsError(f"--model {folder}: neither one of {', '.join(PRESETS)}, nor a folder with a config.json")
    kind = str(orjson.loads((folder / "config.json").read_bytes()).get("model_type"))
    if kind == GriffonConfig.model_type:
        return _saved(folder, settings, dtype)
    if kind.endswith("_Griffon"):
        raise SettingsError(
            f"--model {folder}: the layout of released weights; run `griffon-train convert griffon` first"
        )
    return _joined(folder, settings, dtype), load_tokenizer(settings.tokenizer or folder)


def _saved(
    folder: Path, settings: Settings, dtype: torch.dtype
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    loading: Any = GriffonForConditionalGeneration.from_pretrained
    model, info = loading(folder, dtype=dtype, output_loading_info=True, local_files_only=True)
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise SettingsError(
            f"{folder}: its weights do not fit its config.json, such as {wrong[0]} ({len(wrong)} in all)"
        )
    return model, load_tokenizer(settings.tokenizer or folder)


def _joined(folder: Path, settings: Settings, dtype: torch.dtype) -> GriffonForConditionalGeneration:
    """A language model, one or two towers, and projectors that have not learned anything yet."""
    if settings.vision_tower is None:
        raise SettingsError(f"--model {folder} is a language model that cannot see; give --vision-tower FOLDER, too")
    language_model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    tower = CLIPVisionModel.from_pretrained(settings.vision_tower, dtype=dtype, local_files_only=True)
    config = GriffonConfig(  # the parts' own configurations, not copies: what changes in one has to change in both
        text_config=language_model.config,
        vision_config=tower.config,
        projector=settings.projector,
        select_layer=settings.select_layer,
    )
    with torch.device("meta"):
        model = GriffonForConditionalGeneration(config)
    model.language_model, model.vision_tower = language_model, tower
    model.projector.to_empty(device="cpu")
    model.projector.apply(model._init_weights)
    return model


def _add_region_tower(model: GriffonForConditionalGeneration, folder: Path, dtype: torch.dtype) -> None:
    """Give a model that has none the tower for `<region>`, and a projector that has not learned anything yet."""
    tower = CLIPVisionModel.from_pretrained(folder, dtype=dtype, local_files_only=True)
    model.config.region_config = tower.config
    model.region_tower = tower
    model.region_projector = region_projector(tower.config.hidden_size, model.config.get_text_config().hidden_size)
