"""What is checked before a run's first step: earlier settings, sets, room."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.settings import (
    Settings,
    differences,
    settings_from_json,
)
from griffon_train.data.shared_memory import check_shared_memory, needed_bytes, ranks_here
from griffon_train.data.source_stream import Shows
from griffon_train.model.config import GriffonConfig
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.weight_files import read_json
from griffon_train.training.checkpoint_folders import steps_there
from griffon_train.training.disk_space import check_room, need_of
from griffon_train.training.distributed import ProcessGroup
from griffon_train.training.log_hook import imported
from griffon_train.training.model_loading import (
    MODEL_NAME,
    PROJECTOR_NAME,
    SETTINGS_NAME,
)


def check_same_settings(settings: Settings) -> None:
    """Compare the settings with those that the run in the output folder began with.

    Raises:
        SettingsError: one differs that may not.
        DataError: the stored settings are damaged.
    """
    run = settings.output_dir
    path = run / SETTINGS_NAME
    if not path.exists():
        return
    before = _stored_settings(path)
    changed = differences(before, settings)
    if not changed:
        return
    instead = "Give it the settings that it had, or another --output-dir"
    another = f"--from {run} and another --output-dir begin a new run with the weights that this one"
    anew = "its schedule, AdamW's moments and the order of the samples begin anew"
    if any((run / name).exists() for name in (MODEL_NAME, PROJECTOR_NAME)):
        instead += f". It has ended: {another} has left; {anew}"
    elif (before.steps, before.epochs) != (settings.steps, settings.epochs):
        instead += f". The learning rates depend on its length; let it end, then {another} leaves; {anew}"
    raise SettingsError(f"{run} holds a run with other settings: {'; '.join(changed)}. {instead}")


def _stored_settings(path: Path) -> Settings:
    try:
        return settings_from_json(read_json(path))
    except ValueError as error:
        raise DataError(
            f"{' '.join(str(error).removeprefix(f'{path}: ').split())}, in {path}: it cannot be told what the run was "
            'begun with; bring the file back, from a copy or from "settings" in a checkpoint.json of the run'
        ) from None


def check_log_hook(name: str | None, ranks: ProcessGroup) -> None:
    """See that the hook can be imported on the first rank, which alone calls it.

    Raises:
        SettingsError: it cannot; every rank raises it.
    """
    objection = None
    if name is not None and ranks.first:
        try:
            imported(name)
        except SettingsError as error:
            objection = str(error)
    ranks.raise_if_any(objection)


def open_validation_sets(settings: Settings) -> list[FrozenSet]:
    """Opened here, and again for each validation: nothing of them is held while training goes on."""
    sets = [open_set(path) for path in settings.val_shards]
    for each in sets:
        if not len(each):
            raise SettingsError(f"--val-shards {each.root}: has no samples; leave it out, or give another set")
    return sets


def check_disk_room(
    settings: Settings, ranks: ProcessGroup, steps: int, model: GriffonForConditionalGeneration
) -> None:
    """See, on the first rank, that there is room for what the run will write; nothing of a run is there so far."""
    objection = None
    if ranks.first and steps > max(steps_there(settings.output_dir), default=0):
        alone = settings.freezing.trained_parts() == ("projector",)
        need = need_of(
            settings.output_dir,
            settings.output_dir / (PROJECTOR_NAME if alone else MODEL_NAME),
            list((model.projector if alone else model).parameters()),
            sum(each.numel() for each in model.parameters() if each.requires_grad),
            keep=settings.keep,
            saves=-(-steps // settings.save_steps),
        )
        try:
            click.echo(check_room(settings.output_dir, need), err=True)
        except DataError as error:
            objection = str(error)
    for each in ranks.gathered(objection):
        if each is not None:
            raise DataError(each)


def check_worker_memory(settings: Settings, ranks: ProcessGroup, shows: Shows, config: Any) -> None:  # noqa: ANN401
    """A machine whose shared memory could not hold what the reading processes have ready."""
    image_px = config.vision_config.image_size
    region_px = image_px if config.region_config is None else config.region_config.image_size
    needed = needed_bytes(
        shows, workers=settings.workers, micro_batch=settings.micro_batch, image_px=image_px, region_px=region_px
    )
    objection = None
    try:
        # Training's loader keeps what it has while validation has one of its own.
        check_shared_memory(needed, ranks_here() * (2 if settings.val_shards else 1))
    except SettingsError as error:
        objection = str(error)
    ranks.raise_if_any(objection)


def check_sets_fit(sets: Sequence[FrozenSet], config: GriffonConfig) -> None:
    """Sets that the model could not read, or would learn to write otherwise than it does."""
    for each in sets:
        written = each.lock.render["boxes"]
        if written != config.box_style:
            teach = ", or teach the model with --boxes bin" if written == "bin" else ""
            raise SettingsError(
                f"{each.root} has {written} boxes, and the model writes {config.box_style} ones: freeze the set with "
                f"`griffon-prep build --boxes {config.box_style}`{teach}"
            )
        pointing = [source.tag for source in each.lock.sources if source.task == "VISJ" and source.samples]
        if pointing and config.region_config is None:
            raise SettingsError(
                f"{each.root}: {', '.join(pointing)} shows crops, and the model has no tower to see them: give "
                "--region-tower, or freeze a set without VISJ"
            )
