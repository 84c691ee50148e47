"""Writes the result of a run with LoRA: an adapter, as `griffon_train.training.adapter_files` reads it."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_folder
from griffon_train.config.run_folder import ADAPTER_BASE_NAME, MODEL_NAME
from griffon_train.config.settings import Settings, settings_as_json
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.folders import ADAPTER_CONFIG_NAME
from griffon_train.model.freezing import PARTS
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import (
    adapter_config,
    base_name,
    peft_name,
)
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import (
    write_json,
)
from griffon_train.training.adapter_files import WEIGHTS_NAME, adapter_folder, of_parts, own_weights, read_adapter


def export_adapter(
    target: Path,
    model: GriffonForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    ranks: ProcessGroup,
    *,
    settings: Settings,
    frozen_sha256: Mapping[str, str],
    chat: str,
) -> None:
    """Write the adapters of a trained model, and the other parts that trained. Every rank calls this.

    Args:
        target: the new folder; it replaces an earlier one.
        model: the trained model, sharded or not.
        tokenizer: the model's.
        ranks: process group.
        settings: settings of the run.
        frozen_sha256: SHA-256 of each weight that did not train, by name.
        chat: the run's chat template.

    Raises:
        DataError: the result cannot be written; every rank raises this, and no part of it is left.
    """
    parts = _parts_of(model, settings)
    weights = _gathered(own_weights(model, parts), ranks)
    problem = None
    with ranks.at_own_pace("writing the result") as moved:
        try:
            if ranks.first:
                base = {
                    "settings": settings_as_json(_origin(settings)),
                    "dtype": str(model.dtype).removeprefix("torch."),
                    "sha256": {
                        base_name(name): digest for name, digest in frozen_sha256.items() if not of_parts(name, parts)
                    },
                }
                shutil.rmtree(target, ignore_errors=True)
                with whole_folder(target, moved) as folder:
                    save_file(weights, folder / WEIGHTS_NAME, metadata={"format": "pt"})
                    write_json(folder / ADAPTER_CONFIG_NAME, adapter_config(model, parts, _base_of(_origin(settings))))
                    write_json(folder / ADAPTER_BASE_NAME, base)
                    save_beside(folder, model.config, model.generation_config, chat, tokenizer)
        except (OSError, SafetensorError) as error:
            problem = f"{target} cannot be written: {(isinstance(error, OSError) and error.strerror) or error}"
    ranks.raise_if_any(problem, DataError)


def trained_parts(model: nn.Module) -> list[str]:
    """Parts beside the language model whose weights belong to the result, because some of them train."""
    parts = [
        name
        for name in PARTS
        if name != "language_model" and any(each.requires_grad for each in _parameters_of(model, name))
    ]
    # PEFT finds its modules_to_save by the ends of their names, so it wants both projectors where it is given one.
    if "projector" in parts and "region_projector" not in parts and _parameters_of(model, "region_projector"):
        parts.append("region_projector")
    return parts


def exported_weights(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the result holds."""
    return list(own_weights(model, trained_parts(model)).values())


def _parameters_of(model: nn.Module, part: str) -> list[nn.Parameter]:
    module = getattr(model, part)
    return [] if module is None else list(module.parameters())


def _gathered(weights: Mapping[str, nn.Parameter], ranks: ProcessGroup) -> dict[str, torch.Tensor]:
    """Copies of weights on rank 0's CPU, by PEFT's names. Every rank calls this, because ZeRO-3 shards weights."""
    import deepspeed  # only after `distributed_session` has selected the accelerator

    copies: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        with deepspeed.zero.GatheredParameters([weight], enabled=hasattr(weight, "ds_id")):
            if ranks.first:
                copies[peft_name(name)] = weight.detach().cpu().clone().contiguous()
        ranks.watchdog.now("gathering the result")
    return copies


def _origin(settings: Settings) -> Settings:
    """The settings of a run; where it trained an adapter further, with the base model of that one."""
    folder = None if settings.from_run is None else adapter_folder(settings.from_run)
    if folder is None:
        return settings
    return replace(read_adapter(folder).base_settings(settings.model), lora=settings.lora)


def _parts_of(model: nn.Module, settings: Settings) -> list[str]:
    """The parts whose weights are not the base model's: those that train, or trained with the adapter before."""
    folder = None if settings.from_run is None else adapter_folder(settings.from_run)
    before = () if folder is None else read_adapter(folder).parts
    parts = {*trained_parts(model), *before}
    return [name for name in PARTS if name in parts]


def _base_of(settings: Settings) -> str:
    """Where the base model is; a folder that PEFT's users can load, if there is one."""
    if settings.from_run is None:
        return str(settings.model.model)
    whole = settings.from_run / MODEL_NAME
    return str(whole if whole.is_dir() else settings.from_run)
