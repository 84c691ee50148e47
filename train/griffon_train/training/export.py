"""Writes the result of a run: the model as transformers loads it, or after alignment the projector alone."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_folder
from griffon_train.distributed.process_group import ProcessGroup, transformers_progress
from griffon_train.model.convert import save_projector
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import SHARD_SIZE
from griffon_train.training.engine import Engine


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
    weights = _gathered_weights(model, ranks, "projector." if projector_alone else "")
    problem = None
    with ranks.at_own_pace("writing the result") as moved, transformers_progress(moved):
        try:
            if ranks.first and projector_alone:
                save_projector(weights, target)
            elif ranks.first:
                shutil.rmtree(target, ignore_errors=True)
                with whole_folder(target, moved) as folder:
                    model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)
                    save_beside(folder, model.config, model.generation_config, chat, tokenizer)
        except (OSError, SafetensorError) as error:
            problem = f"{target} cannot be written: {(isinstance(error, OSError) and error.strerror) or error}"
    ranks.raise_if_any(problem, DataError)


def _gathered_weights(model: Any, ranks: ProcessGroup, prefix: str) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Copies of the weights on rank 0's CPU. Every rank calls this, because ZeRO-3 shards weights over all ranks."""
    import deepspeed  # only after `distributed_session` has selected the accelerator

    weights: dict[str, torch.Tensor] = {}
    copies: dict[int, torch.Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not name.startswith(prefix):
            continue
        if id(parameter) not in copies:
            with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                copies[id(parameter)] = parameter.detach().cpu().clone() if ranks.first else torch.empty(0)
        weights[name] = copies[id(parameter)]
        ranks.watchdog.now("gathering the result")
    return weights
