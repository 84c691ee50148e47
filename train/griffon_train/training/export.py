"""What a run leaves behind: the model as transformers loads it, or the projector alone after alignment."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError
from griffon_train.model.convert import save_projector
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import SHARD_SIZE, whole_folder
from griffon_train.training.distributed import ProcessGroup, told_by_transformers
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
    """Write the model into a folder, or its projector into a file, together with all ranks.

    It gets its name when it is whole; what had it before is gone then.

    Raises:
        DataError: it cannot be written; every rank raises it, and nothing of it is left.
    """
    model = engine.module
    weights = _whole_weights(model, ranks, "projector." if projector_alone else "")
    problem = None
    with ranks.at_own_pace("writing the result") as moved, told_by_transformers(moved):
        try:
            if ranks.first and projector_alone:
                save_projector(weights, target)
            elif ranks.first:
                shutil.rmtree(target, ignore_errors=True)
                with whole_folder(target, moved) as folder:
                    model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)
                    _save_beside(folder, model, chat, tokenizer)
        except (OSError, SafetensorError) as error:
            problem = f"{target} cannot be written: {(isinstance(error, OSError) and error.strerror) or error}"
    for each in ranks.gathered(problem):
        if each is not None:
            raise DataError(each)


def _save_beside(folder: Path, model: Any, chat: str, tokenizer: PreTrainedTokenizerBase) -> None:  # noqa: ANN401
    try:
        save_beside(folder, model.config, model.generation_config, chat, tokenizer)
    except Exception as error:  # tokenizers, which is written in Rust, has no type for its errors
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error


def _whole_weights(model: Any, ranks: ProcessGroup, prefix: str) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Copies of the weights, on the first rank's CPU; every rank takes part, for ZeRO-3 has spread them over all."""
    import deepspeed  # not before `joined` has chosen the accelerator

    found: dict[str, torch.Tensor] = {}
    copies: dict[int, torch.Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not name.startswith(prefix):
            continue
        if id(parameter) not in copies:
            with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
                copies[id(parameter)] = parameter.detach().cpu().clone() if ranks.first else torch.empty(0)
        found[name] = copies[id(parameter)]
        ranks.watchdog.now("gathering the result")
    return found
