"""Brings a mapped model's weights into memory, one at a time: all of each, or under ZeRO-3 this rank's part of it.

Weights that are mapped from a file are read by every rank for itself, which under ZeRO-3 keeps only its part of them.
All other weights, which are drawn or computed, are those of rank 0.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import distributed, nn

from griffon_shards.support.errors import DataError
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.deferred import forget, is_deferred, value_of
from griffon_train.model.weight_files import drop_pages, is_mapped, return_freed_memory
from griffon_train.training.checkpoints import sha256_of_tensor

_COMPARED_BYTES = 4096


def bring_in(model: nn.Module, dtype: torch.dtype, config: Mapping[str, Any], ranks: ProcessGroup) -> dict[str, str]:
    """Convert the weights, hash the frozen ones and, under ZeRO-3, keep this rank's parts. Every rank calls this.

    Args:
        model: as `map_model` returns it, with its parts frozen.
        dtype: the type to convert the weights to.
        config: DeepSpeed configuration of the engine that the model is for.
        ranks: process group.

    Returns:
        SHA-256 of each frozen weight by name, the same on every rank. The ranks share the work.

    Raises:
        DataError: the ranks have different files; every rank raises this.
    """
    parameters = dict(model.named_parameters())
    mapped = {name: each for name, each in parameters.items() if is_mapped(each) and not is_deferred(each)}
    _refuse_different(mapped, ranks)
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    hashed = set(frozen[ranks.rank :: ranks.world_size])
    if config["zero_optimization"]["stage"] == 3:
        _let_deepspeed_part(model, dtype, config, ranks.device)
        settle: Callable[[Any, torch.device], None] = _keep_part
    else:
        settle = _keep_whole
    sha256 = {}
    with ranks.at_own_pace("reading the weights") as moved:
        for name, parameter in mapped.items():
            source = parameter.data
            parameter.data = source.to(dtype)
            if name in hashed:
                sha256[name] = sha256_of_tensor(parameter)
            settle(parameter, ranks.device)
            if parameter.data_ptr() != source.data_ptr():
                drop_pages(source)
            return_freed_memory(source.nbytes)
            moved()
    for name, parameter in parameters.items():
        if name not in mapped:
            ranks.watchdog.now("sharing the weights that are in no file")
            size_bytes = parameter.nbytes
            _take_from_first(parameter, dtype, ranks)
            if name in hashed:
                sha256[name] = sha256_of_tensor(parameter)
            settle(parameter, ranks.device)
            return_freed_memory(size_bytes)
    return {name: digest for of_rank in ranks.gathered(sha256) for name, digest in of_rank.items()}


def _refuse_different(mapped: Mapping[str, torch.Tensor], ranks: ProcessGroup) -> None:
    """Compare the beginning of every weight that each rank reads for itself: machines may have different files."""
    own = {
        name: zlib.crc32(weight.detach().reshape(-1).view(torch.uint8)[:_COMPARED_BYTES].numpy().data)
        for name, weight in mapped.items()
    }
    first, *others = ranks.gathered(own)
    for rank, other in enumerate(others, 1):
        different = sorted(name for name in {**first, **other} if first.get(name) != other.get(name))
        if different:
            raise DataError(
                f"rank {rank} has another model than rank 0: {len(different):,} weights differ, such as "
                f"{different[0]}; give all machines the same files"
            )


def _let_deepspeed_part(model: nn.Module, dtype: torch.dtype, config: Mapping[str, Any], device: torch.device) -> None:
    """Prepare the parameters for DeepSpeed's partitioning, in the order and with the settings of its own engine.

    The engine would partition them itself, but only after each rank has the whole model on its device and has received
    all of it from rank 0.
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


def _keep_whole(parameter: Any, device: torch.device) -> None:  # noqa: ANN401
    """Keep DeepSpeed from sending rank 0's copy to all ranks, which would give each a copy of mapped pages."""
    parameter.ds_optim_param = True


def _take_from_first(parameter: nn.Parameter, dtype: torch.dtype, ranks: ProcessGroup) -> None:
    """Convert a parameter, and receive rank 0's values."""
    if ranks.first:
        source = parameter.data if is_mapped(parameter) else None
        parameter.data = value_of(parameter, dtype)
        if source is not None:
            drop_pages(source)
        sent = parameter.data.to(ranks.device)
    else:
        sent = torch.empty(parameter.shape, dtype=dtype, device=ranks.device)
        parameter.data = sent
    forget(parameter)
    if ranks.world_size > 1:
        distributed.broadcast(sent.view(-1).view(torch.uint8), 0)
