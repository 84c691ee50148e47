"""The result of a run with LoRA: a folder that PEFT loads onto the model that the adapters were trained on.

Weights of other parts that trained, such as the projector's, are in the same file, as PEFT's `modules_to_save`. A file
of our own says how the base model is loaded and has the SHA-256 of each of its weights, because on another model
adapters mean nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.groups import ModelSettings
from griffon_train.config.lora import LoraSettings
from griffon_train.config.run_folder import ADAPTER_BASE_NAME, ADAPTER_NAME
from griffon_train.config.settings import Settings, settings_from_json
from griffon_train.model.deferred import forget
from griffon_train.model.folders import ADAPTER_CONFIG_NAME
from griffon_train.model.freezing import PARTS
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import (
    adapted_layers,
    adapter_weights,
    insert,
    peft_name,
)
from griffon_train.model.weight_files import (
    WeightFiles,
    note_mapped,
    read_json,
    refuse_other,
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
            given: say where it is now, if it has moved; and its attention and tokenizer.
        """
        model, from_run = self.settings.model, self.settings.from_run
        if given.model is not None:
            model, from_run = replace(given, tokenizer=given.tokenizer or self.path), None
        elif "projector" in self.parts:  # then it does not matter which one the base model has
            model = replace(model, pretrain_mm_mlp_adapter=None)
        model = replace(model, attention=given.attention, tokenizer=given.tokenizer or model.tokenizer)
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
            targets = " and no --lora-targets" if own.lora_targets is None else f" --lora-targets {own.lora_targets}"
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
        wanted = {peft_name(name): weight for name, weight in own_weights(model, self.parts).items()}
        refuse_other(f"{self.path / WEIGHTS_NAME}: not the weights of its {ADAPTER_CONFIG_NAME}", wanted, tensors)
        for name, weight in wanted.items():
            forget(weight)
            weight.data = tensors[name]
        note_mapped(wanted.values())

    def _refuse_other_base(self, model: nn.Module, *, compare: bool) -> None:
        weights = {name: weight for name, weight in model.named_parameters() if not of_parts(name, self.parts)}
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
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{folder / ADAPTER_BASE_NAME}: damaged ({error}); restore the folder from a copy") from None
    _check_config(adapter)
    return adapter


def _check_config(adapter: Adapter) -> None:
    """Check that PEFT's configuration of an adapter is the one that the run wrote."""
    config, own = adapter.config, adapter.settings.lora
    layers, parts = config.get("target_modules"), config.get("modules_to_save")
    values = {
        "r": config.get("r") == own.lora_r,
        "lora_alpha": config.get("lora_alpha") == own.alpha,
        "target_modules": isinstance(layers, list) and layers and all(isinstance(each, str) for each in layers),
        "modules_to_save": parts is None or (isinstance(parts, list) and all(part in PARTS for part in parts)),
    }
    for name in (name for name, right in values.items() if not right):
        raise DataError(
            f"{adapter.path / ADAPTER_CONFIG_NAME}: damaged: {name} is {config.get(name)!r}, which is not what the run "
            "wrote; restore the folder from a copy"
        )


@contextmanager
def loading_base(adapter: Adapter) -> Iterator[None]:
    """Add to errors about the base model of an adapter what to do if it has moved."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(
            f"{adapter.path}: its base model cannot be loaded: {error}; if it has moved, give its folder as --model, "
            "also to griffon-train convert merge"
        ) from None


def own_weights(model: nn.Module, parts: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters of a model's adapters and of some of its parts, by name."""
    of_some = {name: each for name, each in model.named_parameters() if of_parts(name, parts)}
    return {**adapter_weights(model), **of_some}


def of_parts(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter, by its name, is one of some parts of a model."""
    return name.partition(".")[0] in parts
