"""The result of a run with LoRA: a folder that PEFT loads onto the model that the adapters were trained on.

Weights of other parts that trained, such as the projector's, are in the same file, as PEFT's `modules_to_save`. A file
of our own says how the base model is loaded and has the SHA-256 of each of its weights, because on another model
adapters mean nothing.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import whole_folder
from griffon_train.config.groups import ModelSettings
from griffon_train.config.lora import LoraSettings
from griffon_train.config.run_folder import ADAPTER_BASE_NAME, ADAPTER_NAME, MODEL_NAME
from griffon_train.config.settings import Settings, settings_as_json, settings_from_json
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.deferred import forget
from griffon_train.model.folders import ADAPTER_CONFIG_NAME
from griffon_train.model.freezing import PARTS
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import (
    adapted_layers,
    adapter_config,
    adapter_weights,
    base_name,
    insert,
    peft_name,
)
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import (
    WeightFiles,
    note_mapped,
    read_json,
    refuse_other,
    write_json,
)
from griffon_train.training.checkpoints import sha256_of_value

WEIGHTS_NAME = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter that a run wrote.

    Attributes:
        path: its folder.
        settings: settings of the run; without LoRA, they load the base model.
        dtype: of the run.
        base_sha256: SHA-256 of each weight of the base model that did not train, in that dtype, by name.
        config: PEFT's configuration.
    """

    path: Path
    settings: Settings
    dtype: torch.dtype
    base_sha256: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def parts(self) -> Sequence[str]:
        """Parts of the model beside the language model whose weights the adapter has."""
        return self.config["modules_to_save"] or ()

    def base_settings(self, given: ModelSettings) -> Settings:
        """Settings that load the base model.

        Args:
            given: say where it is now, if it has moved; and its attention.
        """
        model, from_run = self.settings.model, self.settings.from_run
        if given.model is not None:
            model, from_run = replace(given, tokenizer=given.tokenizer or self.path), None
        elif "projector" in self.parts:  # then it does not matter which one the base model has
            model = replace(model, pretrain_mm_mlp_adapter=None)
        model = replace(model, attention=given.attention)
        return replace(self.settings, model=model, from_run=from_run, lora=LoraSettings())

    def refuse_other_settings(self, lora: LoraSettings, model: GriffonForConditionalGeneration) -> None:
        """Check that a run that trains the adapter further has its rank, scale and layers.

        Args:
            lora: settings of that run.
            model: the base model.

        Raises:
            SettingsError: they differ.
        """
        own = self.settings.lora
        same_layers = sorted(adapted_layers(model, lora)) == sorted(self.config["target_modules"])
        if (lora.lora_r, lora.alpha, same_layers) != (own.lora_r, own.alpha, True):
            targets = "" if own.lora_targets is None else f" --lora-targets {own.lora_targets}"
            raise SettingsError(
                f"{self.path}: its adapter has --lora-r {own.lora_r} --lora-alpha {own.alpha:g}{targets}; give "
                "the same to train it further, or merge it with griffon-train convert merge and give the result as "
                "--model to train a new one"
            )

    def put_into(self, model: GriffonForConditionalGeneration, *, dropout: float, compare: bool) -> None:
        """Insert the adapter into its base model, and map the other parts that it has.

        Args:
            model: the base model.
            dropout: of the adapters in training.
            compare: whether to compare the base model's weights, and not only their names, with those that the adapter
                was trained on.

        Raises:
            SettingsError: the model is not the adapter's base model.
            DataError: the adapter's weights are damaged.
        """
        self._refuse_other_base(model, compare=compare)
        insert(
            model,
            self.config["target_modules"],
            r=self.config["r"],
            alpha=self.config["lora_alpha"],
            dropout=dropout,
            dtype=self.dtype,
        )
        tensors = WeightFiles(self.path / WEIGHTS_NAME)
        wanted = {peft_name(name): weight for name, weight in _own_weights(model, self.parts).items()}
        refuse_other(f"{self.path / WEIGHTS_NAME}: not the weights of its {ADAPTER_CONFIG_NAME}", wanted, tensors)
        for name, weight in wanted.items():
            forget(weight)
            weight.data = tensors[name]
        note_mapped(wanted.values())

    def _refuse_other_base(self, model: nn.Module, *, compare: bool) -> None:
        weights = {name: weight for name, weight in model.named_parameters() if not _of_parts(name, self.parts)}
        others = weights.keys() ^ self.base_sha256.keys()
        if compare:
            others |= {
                name
                for name, sha256 in self.base_sha256.items()
                if name not in others and sha256_of_value(weights[name], self.dtype) != sha256
            }
        if others:
            raise SettingsError(
                f"{self.path}: the adapter was trained on another model than this one: {len(others):,} weights differ, "
                f"such as {min(others)}; give the model that it was trained on"
            )


def adapter_folder(path: Path) -> Path | None:
    """The folder of an adapter: that of the run's result, or the folder itself; None if it holds no adapter of ours."""
    return next((each for each in (path / ADAPTER_NAME, path) if (each / ADAPTER_BASE_NAME).is_file()), None)


def read_adapter(folder: Path) -> Adapter:
    """Read how an adapter was trained; its weights are read when it is put into a model.

    Raises:
        SettingsError: a file is missing.
        DataError: a file is damaged.
    """
    base, config = read_json(folder / ADAPTER_BASE_NAME), read_json(folder / ADAPTER_CONFIG_NAME)
    try:
        settings = settings_from_json(base["settings"])
        dtype: torch.dtype = getattr(torch, base["dtype"])
        adapter = Adapter(path=folder, settings=settings, dtype=dtype, base_sha256=base["sha256"], config=config)
        if not settings.lora.enabled or not isinstance(adapter.base_sha256, dict):
            raise TypeError("it is not of a run with LoRA")
        for name in ("r", "lora_alpha", "target_modules", "modules_to_save"):
            config[name]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{folder / ADAPTER_BASE_NAME}: damaged ({error}); restore the folder from a copy") from None
    return adapter


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
    weights = _gathered(_own_weights(model, parts), ranks)
    problem = None
    with ranks.at_own_pace("writing the result") as moved:
        try:
            if ranks.first:
                base = {
                    "settings": settings_as_json(_origin(settings)),
                    "dtype": str(model.dtype).removeprefix("torch."),
                    "sha256": {
                        base_name(name): digest for name, digest in frozen_sha256.items() if not _of_parts(name, parts)
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
    return list(_own_weights(model, trained_parts(model)).values())


def _parameters_of(model: nn.Module, part: str) -> list[nn.Parameter]:
    module = getattr(model, part)
    return [] if module is None else list(module.parameters())


def _of_parts(name: str, parts: Sequence[str]) -> bool:
    return name.partition(".")[0] in parts


def _own_weights(model: nn.Module, parts: Sequence[str]) -> dict[str, nn.Parameter]:
    """The adapters' parameters and those of some parts, by name."""
    of_parts = {name: each for name, each in model.named_parameters() if _of_parts(name, parts)}
    return {**adapter_weights(model), **of_parts}


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
