"""Writes the result of a run: the model as transformers loads it, or after alignment the projector alone.

Weights are gathered and written one at a time, so that no rank holds the whole model.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_folder
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.convert import save_projector
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import SHARD_SIZE
from griffon_train.training.engine import Engine
from griffon_train.training.tensor_file import TensorFile

_Weights = Mapping[str, nn.Parameter]
_Gathered = Iterator[tuple[torch.Tensor, Callable[[], None]]]
_COMPUTED = "computed"


def export(
    target: Path,
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    ranks: ProcessGroup,
    *,
    chat: str,
    projector_alone: bool,
) -> None:
    """Write the model into a folder, or its projector into a file. Every rank calls this.

    The result gets its final name when it is complete, and replaces an earlier one.

    Raises:
        DataError: the result cannot be written; every rank raises this, and no part of it is left.
    """
    model = engine.module
    files = {target.name: _projector(model)} if projector_alone else _files(model)
    gathered = _gathered([weight for weights in files.values() for weight in weights.values()], ranks)
    problem = None
    try:
        if ranks.first and projector_alone:
            save_projector(_copies(files[target.name], gathered), target)
        elif ranks.first:
            shutil.rmtree(target, ignore_errors=True)
            with whole_folder(target) as folder:
                _write_model(folder, model, files, gathered)
                save_beside(folder, model.config, model.generation_config, chat, tokenizer)
    except (OSError, SafetensorError) as error:
        problem = f"{target} cannot be written: {(isinstance(error, OSError) and error.strerror) or error}"
    for _ in gathered:  # every rank takes part in gathering all of them
        pass
    ranks.raise_if_any(problem, DataError)


def _gathered(weights: Iterable[nn.Parameter], ranks: ProcessGroup) -> _Gathered:
    """Each weight, whole until the next one is asked for, and a function to call after each unit of progress.

    Every rank goes through all of them, because ZeRO-3 shards weights over all ranks.
    """
    import deepspeed  # only after `distributed_session` has selected the accelerator

    for weight in weights:
        ranks.watchdog.now("gathering the result")
        with (
            deepspeed.zero.GatheredParameters([weight], enabled=hasattr(weight, "ds_id")),
            ranks.at_own_pace("writing the result") as moved,
        ):
            yield weight.detach(), moved


def _copies(weights: _Weights, gathered: _Gathered) -> dict[str, torch.Tensor]:
    return {name: next(gathered)[0].cpu().clone() for name in weights}


def _projector(model: Any) -> _Weights:  # noqa: ANN401
    return {name: weight for name, weight in model.named_parameters() if name.startswith("projector.")}


def _files(model: Any) -> dict[str, _Weights]:  # noqa: ANN401
    """The weights that each file of a saved model holds, by the names that they have there, in the order in the file.

    Weights that are tied to others are left out. Where transformers stores tensors that it computes from the model's,
    such as one for each expert, it must have all of them at once: the weights then stand under `_COMPUTED`.
    """
    weights = {
        name: weight
        for name, weight in model.named_parameters(remove_duplicate=False)
        if name not in model.all_tied_weights_keys
    }
    described = _described(weights)
    owners = {id(tensor): name for name, tensor in described.items()}
    stored = revert_weight_conversion(model, dict(described))
    if any(id(tensor) not in owners for tensor in stored.values()):
        return {_COMPUTED: weights}
    split = split_torch_state_dict_into_shards(
        stored, filename_pattern="model{suffix}.safetensors", max_shard_size=SHARD_SIZE
    )
    return {
        file: {
            name: weights[owners[id(stored[name])]]
            for name in sorted(names, key=lambda name: (-stored[name].itemsize, name))  # as safetensors has them
        }
        for file, names in split.filename_to_tensors.items()
    }


def _described(weights: _Weights) -> dict[str, torch.Tensor]:
    """The types and shapes of weights, which a rank may hold in part."""
    return {
        name: torch.empty(getattr(weight, "ds_shape", weight.shape), dtype=weight.dtype, device="meta")
        for name, weight in weights.items()
    }


def _write_model(folder: Path, model: Any, files: Mapping[str, _Weights], gathered: _Gathered) -> None:  # noqa: ANN401
    """Write a model as its `save_pretrained` does."""
    if _COMPUTED in files:
        state = _copies(files[_COMPUTED], gathered)
        model.save_pretrained(folder, state_dict=state, max_shard_size=SHARD_SIZE)
        return
    model.save_pretrained(folder, state_dict={})  # everything but the weights
    sizes = []
    for name, weights in files.items():
        described = _described(weights)
        sizes += [(tensor.numel(), tensor.nbytes) for tensor in described.values()]
        with TensorFile(folder / name, described, metadata={"format": "pt"}) as file:
            for _ in weights:
                file.write(*next(gathered))
    if len(files) > 1:
        parameters, total_bytes = (sum(column) for column in zip(*sizes, strict=True))
        index = {
            "metadata": {"total_parameters": parameters, "total_size": total_bytes},
            "weight_map": {name: file for file, weights in files.items() for name in weights},
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
