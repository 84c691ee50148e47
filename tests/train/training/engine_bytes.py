"""A log hook, `engine_bytes:write`, that counts what its process's engine holds; ranks can import it from here."""

import gc
import json
import os
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine


def write(_step: int, _figures: Any) -> None:  # noqa: ANN401
    """Write the bytes of weights, optimizer and gradients, counted once, into the file named by ENGINE_BYTES."""
    (engine,) = (each for each in gc.get_objects() if isinstance(each, DeepSpeedEngine))
    zero = engine.optimizer
    states = [value for state in zero.optimizer.state.values() for value in state.values()]
    moments = [value for value in states if isinstance(value, torch.Tensor) and value.dim()]
    if engine.zero_optimization_stage() == 3:
        parameters = list(engine.module.parameters())
        weights = [each.ds_tensor for each in parameters] + [each.data for each in parameters if each.ds_persist]
        masters, gradients = zero.fp32_partitioned_groups_flat, [zero.grad_partitions_flat_buffer]
    else:
        weights = [each.data for each in engine.module.parameters()]
        masters, gradients = zero.single_partition_of_fp32_groups, []
    found = {"weights": weights, "optimizer": [*masters, *moments], "gradients": gradients}
    content = {name: _bytes_of(tensors) for name, tensors in found.items()}
    Path(os.environ["ENGINE_BYTES"]).write_text(json.dumps(content))


def _bytes_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of the tensors' storages, each once."""
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values())
