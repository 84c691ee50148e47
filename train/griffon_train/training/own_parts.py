"""Brings a mapped model's weights into memory, one at a time: all of each, or under ZeRO-3 this rank's part of it.

Weights that are mapped from a file are read by every rank for itself, and under ZeRO-3 only this rank's part of them.
All other weights, which were drawn or computed, are those of rank 0.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed, nn

from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.weight_files import drop_pages, is_mapped
from griffon_train.training.checkpoints import sha256_of_tensor


def bring_in(model: nn.Module, dtype: torch.dtype, config: Mapping[str, Any], ranks: ProcessGroup) -> dict[str, str]:
    """Convert the weights, hash the frozen ones and, under ZeRO-3, keep this rank's parts. Every rank calls this.

    Args:
        model: as `map_model` returns it, with its parts frozen.
        dtype: the type to convert the weights to.
        config: DeepSpeed configuration of the engine that the model is for.
        ranks: process group.

    Returns:
        SHA-256 of each frozen weight by name, the same on every rank. The ranks share the work.
    """
    parameters = list(model.named_parameters())
    parted = config["zero_optimization"]["stage"] == 3
    if parted:
        _let_deepspeed_part(model, dtype, config, ranks.device)
    hashed = [name for name, parameter in parameters if not parameter.requires_grad][ranks.rank :: ranks.world_size]
    hashes = _Hashes(set(hashed))
    mapped = [is_mapped(parameter) for _, parameter in parameters]
    with ranks.at_own_pace("reading the weights") as moved:
        for (name, parameter), from_file in zip(parameters, mapped, strict=True):
            if from_file:
                source = parameter.data
                parameter.data = source.to(dtype)
                hashes.add(name, parameter)
                if parted:
                    _keep_part(parameter, ranks.device)
                if not is_mapped(parameter):
                    drop_pages(source)
                moved()
    for (name, parameter), from_file in zip(parameters, mapped, strict=True):
        if not from_file:
            ranks.watchdog.now("sharing the weights that are in no file")
            _take_from_first(parameter, dtype, ranks)
            hashes.add(name, parameter)
            if parted:
                _keep_part(parameter, ranks.device)
    return {name: digest for of_rank in ranks.gathered(hashes.by_name) for name, digest in of_rank.items()}


class _Hashes:
    """This rank's share of the hashes."""

    def __init__(self, names: set[str]) -> None:
        self._names, self.by_name = names, dict[str, str]()

    def add(self, name: str, parameter: torch.Tensor) -> None:
        if name in self._names:
            self.by_name[name] = sha256_of_tensor(parameter)


def _let_deepspeed_part(model: nn.Module, dtype: torch.dtype, config: Mapping[str, Any], device: torch.device) -> None:
    """Make the parameters such as DeepSpeed can part, in the order and with the settings of its own engine.

    The engine would do it by itself, but only after each rank has the model whole on its device and has received all of
    it from rank 0.
    """
    import deepspeed  # only after `distributed_session` has selected the accelerator

    init = deepspeed.zero.Init(module=nn.Module(), dtype=dtype, config_dict_or_path=dict(config))
    for parameter in model.parameters():
        init._convert_to_deepspeed_param(parameter)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)


def _keep_part(parameter: Any, device: torch.device) -> None:  # noqa: ANN401 - DeepSpeed adds methods to it
    """Copy this rank's part of a parameter to where DeepSpeed keeps it, and let go of the rest."""
    parameter.partition()
    parameter.data = torch.empty(0, dtype=parameter.dtype, device=device)  # where DeepSpeed gathers it


def _take_from_first(parameter: nn.Parameter, dtype: torch.dtype, ranks: ProcessGroup) -> None:
    if ranks.world_size == 1:
        parameter.data = parameter.data.to(dtype)
    elif ranks.first:
        parameter.data = parameter.data.to(dtype)
        distributed.broadcast(parameter.data.to(ranks.device).view(torch.uint8), 0)
    else:
        received = torch.empty(parameter.shape, dtype=dtype, device=ranks.device)
        distributed.broadcast(received.view(torch.uint8), 0)
        parameter.data = received
