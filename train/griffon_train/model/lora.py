"""LoRA adapters in the language model, made and computed by PEFT; only this module imports it, as it is optional.

See Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. An adapter adds `alpha / r * B(A(x))` to the
output of a linear layer. A is random and B is 0 at first, so a new adapter changes nothing.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from griffon_shards.support.errors import SettingsError
from griffon_train.config.lora import LoraSettings
from griffon_train.model.deferred import defer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.weight_files import listed

NAME = "default"
"""What PEFT calls an adapter if it is not given a name."""

_PREFIX = "base_model.model."
"""In PEFT's files, the model is this attribute of PEFT's own."""

_WEIGHT = re.compile(rf"\.lora_[AB]\.{NAME}\.weight")
_LANGUAGE_MODEL = "language_model."


def require_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        SettingsError: it is not.
    """
    if find_spec("peft") is None:
        raise SettingsError("LoRA needs peft, which is not installed: pip install 'griffon-pipeline[lora]'")


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter, by its name, is an adapter's."""
    return _WEIGHT.search(name) is not None


def has_adapters(model: nn.Module) -> bool:
    """Whether adapters were added to a model."""
    return any(is_adapter_weight(name) for name, _ in model.named_parameters())


def base_name(name: str) -> str:
    """The name that a weight has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def peft_name(name: str) -> str:
    """The name that a weight of a model with adapters has in PEFT's files."""
    return _PREFIX + name.replace(f".{NAME}.", ".")


def adapted_layers(model: GriffonForConditionalGeneration, lora: LoraSettings) -> list[str]:
    """Names of the layers to adapt, in the order of the model.

    Raises:
        SettingsError: `lora_targets` selects none, or a head that is tied to the embeddings.
    """
    language_model, head = model.language_model, model.get_output_embeddings()
    layers = {name: module for name, module in language_model.named_modules() if isinstance(module, nn.Linear)}
    chosen = [name for name, layer in layers.items() if lora.adapts(name)]
    if lora.lora_targets is None:
        chosen = [name for name in chosen if layers[name] is not head]
    unknown = lora.unknown_targets(layers)
    if unknown or not chosen:
        kinds = sorted({name.rpartition(".")[2] for name in layers})
        given = "--lora-r" if lora.lora_targets is None else f"--lora-targets {lora.lora_targets}"
        what = f"{', '.join(unknown)} is no linear layer" if unknown else "selects no linear layer"
        raise SettingsError(
            f"{given}: {what} of the language model; there are {listed(kinds)}, in complete names such as "
            f"{min(layers, default='none')}"
        )
    if any(layers[name] is head for name in chosen) and head.weight is model.get_input_embeddings().weight:
        raise SettingsError(
            f"--lora-targets {lora.lora_targets}: selects the head, whose weights are those of the embeddings in this "
            "model, and embeddings do not train with LoRA; leave it out"
        )
    return [_LANGUAGE_MODEL + name for name in chosen]


def add_adapters(model: GriffonForConditionalGeneration, lora: LoraSettings, seed: int, dtype: torch.dtype) -> None:
    """Add new adapters to a model, which may be on the meta device. They depend on the seed and their names alone.

    Raises:
        SettingsError: PEFT is not installed, or `lora_targets` does not fit the model.
    """
    require_peft()
    assert lora.lora_r is not None
    insert(model, adapted_layers(model, lora), r=lora.lora_r, alpha=lora.alpha, dropout=lora.lora_dropout, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter_weight(name) and ".lora_A." in name and parameter.device.type != "meta":
                digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
                draws = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)
                values = torch.empty(
                    parameter.shape
                )  # in float32, so that every dtype has roundings of the same values
                parameter.copy_(nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=draws))


def insert(
    model: GriffonForConditionalGeneration,
    layers: Sequence[str],
    *,
    r: int,
    alpha: float,
    dropout: float,
    dtype: torch.dtype,
) -> None:
    """Insert adapters whose weights are still to be set into layers of a model.

    Raises:
        SettingsError: PEFT is not installed.
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model  # optional, and slow to import

    options: dict[str, Any] = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout}
    config = LoraConfig(**options, target_modules=list(layers))
    inject_adapter_in_model(config, model, adapter_name=NAME)
    del model.peft_config  # transformers would take the model for one of its own with adapters
    for weight in adapter_weights(model).values():
        weight.data = weight.data.to(dtype)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have adapters, with their names."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
            yield name, module


def adapter_config(model: GriffonForConditionalGeneration, parts: Sequence[str], base: str) -> dict[str, Any]:
    """PEFT's configuration of the adapters of a model, as in `adapter_config.json`.

    Args:
        model: has adapters.
        parts: other parts of the model whose weights are in the same file.
        base: what the adapters belong to.
    """
    from peft import LoraConfig

    layers = dict(_adapted(model))
    first = next(iter(layers.values()))
    config: Any = LoraConfig(
        r=first.r[NAME],
        lora_alpha=first.lora_alpha[NAME],
        lora_dropout=getattr(first.lora_dropout[NAME], "p", 0.0),
        base_model_name_or_path=base,
        inference_mode=True,
    )
    return {**config.to_dict(), "target_modules": sorted(layers), "modules_to_save": list(parts) or None}


def merge(model: GriffonForConditionalGeneration, dtype: torch.dtype) -> None:
    """Remove the adapters of a model; each is added to its weight, in float32, once that is needed.

    Args:
        model: has adapters.
        dtype: the type that the weights are rounded to before.
    """
    for name, layer in _adapted(model):
        a, b = layer.lora_A[NAME].weight.data, layer.lora_B[NAME].weight.data
        defer(layer.base_layer.weight, partial(_sum, dtype=dtype, scale=layer.scaling[NAME], a=a, b=b))
        model.set_submodule(name, layer.base_layer)


def _sum(weight: torch.Tensor, dtype: torch.dtype, scale: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return weight.to(dtype).float() + scale * (b.float() @ a.float())


def adapter_weights(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """The adapters' parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if is_adapter_weight(name)}
