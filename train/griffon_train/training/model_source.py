"""Opens a model for evaluation: a saved one, the result of a run, or a checkpoint of a run that was not exported."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.run_folder import BEST_NAME, MODEL_NAME, PROJECTOR_NAME, SETTINGS_NAME, stored_settings
from griffon_train.config.settings import Settings
from griffon_train.distributed.process_group import ProcessGroup, transformers_progress
from griffon_train.evaluation.saved_model import DTYPES, LoadedModel, open_saved
from griffon_train.model.folders import Kind, recognised
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.parts import naming
from griffon_train.model.weight_files import read_json
from griffon_train.text.chat_templates import check_tokenizer
from griffon_train.training import checkpoint_folders
from griffon_train.training.adapter_files import adapter_folder, read_adapter
from griffon_train.training.checkpoint_folders import TrainingCheckpoint
from griffon_train.training.checkpoints import sha256_of_tensor, tensor_hashes, trained_weights
from griffon_train.training.model_loading import default_chat, load_model

_log = logging.getLogger(__name__)

LAST, BEST = "last", "best"
_CHECKPOINT = re.compile(r"(?:step-)?(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A model on the rank's device, and the SHA-256 of its weights: of the hashes of all parameters, by name."""

    loaded: LoadedModel
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """What a model is made of.

    Attributes:
        path: a saved model's folder, a run's, or an adapter's.
        saved: whether the folder is, or has, a complete model.
        checkpoint: that of the run to take; None for its result.
    """

    path: Path
    saved: bool
    checkpoint: str | None


def source_of(path: Path, checkpoint: str | None) -> ModelSource:
    """Find what a model is made of.

    Args:
        path: a saved model, the output folder of a run, one of its checkpoints, or an adapter.
        checkpoint: as for `open_model`.

    Raises:
        SettingsError: the folder is something else, or has no such checkpoint.
        DataError: its config.json is damaged.
    """
    kind = recognised("model", path, Kind)
    if checkpoint is not None and kind is not Kind.RUN:
        raise SettingsError(
            f"--from {checkpoint}: {path} is {kind.value}, not the output folder of a run, which has checkpoints"
        )
    if kind is Kind.CHECKPOINT:
        whole = path.absolute()
        run, checkpoint = whole.parent.parent, whole.name
        if not (run / SETTINGS_NAME).is_file():
            raise SettingsError(f"model {path}: a checkpoint that is no longer in the folder of its run; put it back")
        return ModelSource(path=run, saved=False, checkpoint=checkpoint)
    if kind is Kind.MODEL or (kind is Kind.RUN and checkpoint is None and (path / MODEL_NAME).is_dir()):
        return ModelSource(path=path, saved=True, checkpoint=None)
    if checkpoint is None and adapter_folder(path) is None and not (path / PROJECTOR_NAME).is_file():
        checkpoint = LAST
    return ModelSource(path=path, saved=False, checkpoint=checkpoint)


def open_model(path: Path, checkpoint: str | None, dtype: str, ranks: ProcessGroup) -> OpenedModel:
    """Open a model. Every rank calls this.

    Args:
        path: a saved model, the output folder of a run, one of its checkpoints, or an adapter.
        checkpoint: `last`, `best`, or a checkpoint of the run by its name or step; by default the run's result, or
            its last checkpoint if it has none yet.
        dtype: `auto`, `bfloat16` or `float32`; auto is bfloat16 on CUDA and float32 on the CPU.
        ranks: process group, whose device the model is put on.

    Raises:
        SettingsError: there is no such model or checkpoint.
        DataError: weights are damaged, or those that the run did not train have changed since.
    """
    with ranks.at_own_pace("loading the model") as moved, transformers_progress(moved):
        source = source_of(path, checkpoint)
        wanted = DTYPES["bfloat16" if ranks.device.type == "cuda" else "float32"] if dtype == "auto" else DTYPES[dtype]
        if source.saved:
            loaded = open_saved(source.path, str(ranks.device), dtype)
        elif source.checkpoint is None:
            loaded = _of_result(source.path, wanted)
    if source.checkpoint is not None:
        loaded = _of_checkpoint(source.path, source.checkpoint, wanted, ranks)
    model: Any = loaded.model
    model.eval()
    model.to(ranks.device)
    hashes = tensor_hashes(iter(sorted(model.named_parameters())), ranks)
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
    return OpenedModel(loaded=loaded, weights_sha256=hashlib.sha256(lines.encode()).hexdigest())


def _of_result(run: Path, dtype: torch.dtype) -> LoadedModel:
    """The model of an alignment or a run with LoRA, which saved what trained alone: that, and what it began with."""
    adapter = adapter_folder(run)
    stored = stored_settings(run) if adapter is None else read_adapter(adapter).settings
    settings = Settings(stage=stored.stage, shards=(), output_dir=run, from_run=run, lora=stored.lora)
    model, tokenizer = load_model(settings, dtype)
    return LoadedModel(model, tokenizer, _chat(stored, model, tokenizer))


def _of_checkpoint(run: Path, name: str, dtype: torch.dtype, ranks: ProcessGroup) -> LoadedModel:
    """The model that a run began with, and the weights that it had trained at a checkpoint."""
    checkpoint = _find(run, name, ranks)
    with ranks.at_own_pace(f"loading {checkpoint.path}") as moved, transformers_progress(moved):
        stored = stored_settings(run)
        with naming(f"{run}, its settings:"):
            model, tokenizer = load_model(replace(stored, model=replace(stored.model, attention="auto")), torch.float32)
        _check_frozen(model, checkpoint)
        parameters = dict(model.named_parameters())
        fill(parameters, checkpoint, moved)
        for parameter in parameters.values():  # not the buffers: rotary frequencies need float32
            parameter.data = parameter.data.to(dtype)
    return LoadedModel(model, tokenizer, _chat(stored, model, tokenizer))


def fill(
    parameters: Mapping[str, torch.nn.Parameter], checkpoint: TrainingCheckpoint, moved: Callable[[], object]
) -> None:
    """Copy the weights of a checkpoint into parameters, by name.

    Raises:
        DataError: a weight has no such parameter, or the checkpoint was deleted meanwhile.
    """
    try:
        with torch.no_grad():
            for name, flat in trained_weights(checkpoint):
                parameter = parameters.get(name)
                if parameter is None or parameter.numel() != flat.numel():
                    raise DataError(f"{checkpoint.path}: {name} does not fit the model of the run's settings")
                parameter.copy_(flat.view_as(parameter))
                moved()
    except FileNotFoundError:
        raise DataError(
            f"{checkpoint.path}: was deleted while it was read, as a run that trains deletes older checkpoints; give a "
            "later one, or raise --keep of the run"
        ) from None


def _find(run: Path, name: str, ranks: ProcessGroup) -> TrainingCheckpoint:
    if name == LAST:
        checkpoint, skipped = checkpoint_folders.latest(run, ranks)
        if ranks.first:
            for line in skipped:
                _log.warning(line)
        if checkpoint is None:
            raise SettingsError(f"{run}: the run has no checkpoint yet; it writes one every --save-steps")
        return checkpoint
    if name == BEST:
        if not (run / BEST_NAME).is_file():
            raise SettingsError(f"--from {name}: {run} has no best checkpoint; only runs with --keep-best keep one")
        name = Path(read_json(run / BEST_NAME)["checkpoint"]).name
    match = _CHECKPOINT.fullmatch(name)
    if match is None:
        raise SettingsError(
            f"--from {name}: expected {LAST}, {BEST}, a step, or a checkpoint's name such as step-00000100"
        )
    steps = checkpoint_folders.steps_there(run)
    if int(match[1]) not in steps:
        raise SettingsError(
            f"--from {name}: {run} has no such checkpoint; there are checkpoints after these steps: "
            f"{', '.join(map(str, steps)) or 'none'}"
        )
    return checkpoint_folders.at_step(run, int(match[1]), ranks)


def _check_frozen(model: GriffonForConditionalGeneration, checkpoint: TrainingCheckpoint) -> None:
    """Check that the weights that the run did not train are those that it began with, in either dtype."""
    parameters = dict(model.named_parameters())
    for name, sha256 in checkpoint.index["frozen_sha256"].items():
        held = parameters.get(name)
        if held is None or sha256 not in {sha256_of_tensor(held.to(dtype)) for dtype in DTYPES.values()}:
            raise DataError(
                f"{checkpoint.path}: {name}, which the run did not train, is not what it was when the run began; "
                "restore the model that the run was given"
            )


def _chat(settings: Settings, model: GriffonForConditionalGeneration, tokenizer: object) -> str:
    chat = settings.model.chat or default_chat(model)
    check_tokenizer(chat, tokenizer)
    return chat
