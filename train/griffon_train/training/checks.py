"""Checks before a run's first step: settings of an earlier start, sets, disk space, shared memory."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.tables import size
from griffon_train.config.groups import CheckpointSettings, LoggingSettings
from griffon_train.config.run_folder import ADAPTER_NAME, MODEL_NAME, PROJECTOR_NAME, SETTINGS_NAME, result_name
from griffon_train.config.settings import Settings, differences, prolongs, settings_from_json
from griffon_train.data.shared_memory import check_shared_memory, needed_bytes, ranks_here
from griffon_train.data.source_stream import Shows
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.config import GriffonConfig
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.weight_files import read_json
from griffon_train.training.adapter_export import exported_weights
from griffon_train.training.checkpoint_folders import steps_there
from griffon_train.training.disk_space import BYTES_OF_TRAINED, check_room, need_of
from griffon_train.training.log_hook import imported
from griffon_train.training.validation_figures import figure_names

_log = logging.getLogger(__name__)


def check_same_settings(settings: Settings) -> None:
    """Compare the settings with those that the run in the output folder was started with.

    Raises:
        SettingsError: a setting differs that must not change.
        DataError: the stored settings are damaged.
    """
    run = settings.output_dir
    path = run / SETTINGS_NAME
    if not path.exists():
        return
    before = _stored_settings(path)
    changed = differences(before, settings)
    if not changed or prolongs(before, settings):
        return
    instead = "Give the same settings, or another --output-dir"
    new_run = f"--from {run} and another --output-dir to start a new run from its weights"
    fresh = "the learning rate schedule, AdamW's moments and the sample order start over"
    if any((run / name).exists() for name in (MODEL_NAME, PROJECTOR_NAME, ADAPTER_NAME)):
        instead += f". This run has ended: give {new_run}; {fresh}"
    elif (before.data.steps, before.data.epochs) != (settings.data.steps, settings.data.epochs):
        instead += (
            ". The learning rates depend on the length of the run, except with --schedule constant and --warmup-steps, "
            f"which allow more --steps; let it end, then give {new_run}; {fresh}"
        )
    raise SettingsError(f"{run} holds a run with other settings: {'; '.join(changed)}. {instead}")


def _stored_settings(path: Path) -> Settings:
    try:
        return settings_from_json(read_json(path))
    except ValueError as error:
        raise DataError(
            f"{' '.join(str(error).removeprefix(f'{path}: ').split())}, in {path}: the settings of the run are "
            'unknown; restore the file from a copy, or from "settings" in a checkpoint.json of the run'
        ) from None


def check_log_hook(name: str | None, ranks: ProcessGroup) -> None:
    """Check that the hook can be imported on rank 0, the only one that calls it.

    Raises:
        SettingsError: it cannot be imported; every rank raises this.
    """
    problem = None
    if name is not None and ranks.first:
        try:
            imported(name)
        except SettingsError as error:
            problem = str(error)
    ranks.raise_if_any(problem)


def open_validation_sets(logging: LoggingSettings, keep_best: str | None) -> list[FrozenSet]:
    """Open the validation sets to check them. Each validation opens them again, so that training holds no memory.

    Args:
        logging: names the folders of the sets.
        keep_best: name of the figure by which the best checkpoint is chosen, if one is.

    Raises:
        SettingsError: a set has no samples, or validation on these sets has no such figure.
    """
    sets = [open_set(path) for path in logging.val_shards]
    for frozen in sets:
        if not len(frozen):
            raise SettingsError(f"--val-shards {frozen.root}: the set has no samples; leave it out or give another")
    if keep_best is not None and keep_best not in (
        names := figure_names(sets, scores=logging.val_generate is not None)
    ):
        raise SettingsError(f"--keep-best {keep_best}: validation has no such figure; it has {', '.join(names)}")
    return sets


def check_disk_room(
    settings: Settings, ranks: ProcessGroup, steps: int, model: GriffonForConditionalGeneration, dtype: torch.dtype
) -> None:
    """Check on rank 0 that the disk has space for the run, which saves weights in `dtype`, before its folder is made.

    Raises:
        DataError: there is no space for even one checkpoint; every rank raises this.
    """
    problem = None
    if ranks.first and steps > max(steps_there(settings.output_dir), default=0):
        result = result_name(settings)
        part = model.projector if result == PROJECTOR_NAME else model
        exported = exported_weights(model) if settings.lora.enabled else list(part.parameters())
        trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        saves = settings.checkpointing.save_steps
        if settings.checkpointing.keep_best is not None:
            saves = min(saves, settings.logging.val_steps or saves)
        need = need_of(
            settings.output_dir,
            settings.output_dir / result,
            [torch.empty_like(each, dtype=dtype, device="meta") for each in exported],
            trained,
            keep=_kept(settings.checkpointing, BYTES_OF_TRAINED * trained),
            saves=-(-steps // saves),
        )
        try:
            _log.log(*check_room(settings.output_dir, need))
        except DataError as error:
            problem = str(error)
    ranks.raise_if_any(problem, DataError)


def _kept(settings: CheckpointSettings, checkpoint_bytes: int) -> int:
    """Number of checkpoints that are kept; a warning if even these are larger than `--save-total-gb`."""
    best = settings.keep_best is not None
    kept = settings.keep + best
    if settings.save_total_gb is None:
        return kept
    least, within = 1 + best, settings.save_total_gb * 1e9 / max(1, checkpoint_bytes)
    if within < least:
        always = "the latest and the best one are" if best else "the latest one is"
        _log.warning(
            f"--save-total-gb {settings.save_total_gb:g}: {always} always kept, which takes about "
            f"{size(least * checkpoint_bytes)}"
        )
    return int(max(least, min(kept, within)))


def check_worker_memory(settings: Settings, ranks: ProcessGroup, shows: Shows, config: Any) -> None:  # noqa: ANN401
    """Check that this machine's shared memory can hold the batches that the loader's workers prepare.

    Raises:
        SettingsError: it cannot; every rank raises this.
    """
    image_px = config.vision_config.image_size
    region_px = image_px if config.region_config is None else config.region_config.image_size
    needed = needed_bytes(
        shows,
        workers=settings.data.workers,
        micro_batch=settings.data.micro_batch,
        image_px=image_px,
        region_px=region_px,
    )
    problem = None
    try:
        # The loader of training keeps its batches while validation uses another loader.
        check_shared_memory(needed, ranks_here() * (2 if settings.logging.val_shards else 1))
    except SettingsError as error:
        problem = str(error)
    ranks.raise_if_any(problem)


def check_sets_fit(sets: Sequence[FrozenSet], config: GriffonConfig) -> None:
    """Check that the sets have the model's box style, and crops only if the model has a region tower.

    Raises:
        SettingsError: a set does not fit the model.
    """
    for frozen in sets:
        written = frozen.lock.render["boxes"]
        if written != config.box_style:
            teach = ", or teach the model with --boxes bin" if written == "bin" else ""
            raise SettingsError(
                f"{frozen.root} has {written} boxes, and the model writes {config.box_style} boxes: freeze the set "
                f"with `griffon-prep build --boxes {config.box_style}`{teach}"
            )
        with_regions = [source.tag for source in frozen.lock.sources if source.task == "VISJ" and source.samples]
        if with_regions and config.region_config is None:
            have = "has" if len(with_regions) == 1 else "have"
            raise SettingsError(
                f"{frozen.root}: {', '.join(with_regions)} {have} regions, and the model has no region tower: give "
                "--region-tower, or freeze a set without VISJ"
            )
