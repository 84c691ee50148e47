"""From settings to a run that is ready: everything that can be wrong with them is said before the first step."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson
import torch

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.folder_lock import hold
from griffon_shards.support.tables import table
from griffon_shards.types import Turn
from griffon_train.config.deepspeed import deepspeed_config, scheduler_passed_over
from griffon_train.config.settings import (
    STEERING,
    Settings,
    differences,
    settings_as_json,
    settings_from_json,
    weights_by_tag,
)
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import micro_steps
from griffon_train.data.shared_memory import check_shared_memory, needed_bytes, ranks_here
from griffon_train.data.source_stream import Shows
from griffon_train.model.config import GriffonConfig
from griffon_train.model.freezing import freeze, parameter_counts
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.weight_files import read_json
from griffon_train.text.chat_templates import Encoded, Tokenizer, check_tokenizer, encode, fitted
from griffon_train.training import checkpoints, compiling
from griffon_train.training.checkpoint_folders import steps_there
from griffon_train.training.data_checks import check_taught, remarks
from griffon_train.training.disk_space import check_room, need_of
from griffon_train.training.distributed import Ranks, told_by_transformers
from griffon_train.training.engine import make_engine
from griffon_train.training.log_hook import imported
from griffon_train.training.model_loading import (
    MODEL_NAME,
    PROJECTOR_NAME,
    SETTINGS_NAME,
    default_chat,
    load_model,
    placed,
)
from griffon_train.training.run_state import Job, steps_of


def prepared(settings: Settings, ranks: Ranks) -> Job:
    """Everything from settings to the first step.

    Raises:
        SettingsError: settings, sets, model and an earlier start of the run do not fit each other.
    """
    ranks.watchdog.now("opening the sets")
    settings = placed(settings)
    sets = [open_set(path) for path in settings.shards]
    validation_sets = _validation_sets(settings)
    for each in (*sets, *validation_sets):
        each.check_shards()
    lengths = Lengths.counted(sets, settings.lengths) if settings.lengths else Lengths.estimated(sets)
    plan = Plan(
        sets,
        seed=settings.seed,
        global_batch=settings.global_batch,
        grouping=settings.grouping,
        window=settings.window,
        lengths=lengths,
        weights=weights_by_tag(settings.weights),
    )
    _refuse_other_settings(settings)
    shows = Shows.of(sets)
    check_taught(settings.freezing.trained_parts(), shows, settings, picture_tokens=0)
    _refuse_hook(settings.log_hook, ranks)
    compiling.announce(settings)
    with ranks.at_own_pace("loading the model") as moved, told_by_transformers(moved):
        model, tokenizer = load_model(settings, _dtype(settings, ranks))
    _refuse_unfit([*sets, *validation_sets], model.config)
    _refuse_little_room(settings, ranks, Shows.of([*sets, *validation_sets]), model.config)
    chat = settings.chat or default_chat(model)
    check_tokenizer(chat, tokenizer)
    lengths.check(chat, tokenizer)
    freeze(model, settings.freezing)
    trained = [part for part in settings.freezing.trained_parts() if getattr(model, part) is not None]
    check_taught(trained, shows, settings, picture_tokens=model.picture_tokens)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may differ from run to run
        torch.use_deterministic_algorithms(mode=True)
    model.train()
    if ranks.first:
        _show_parts(model)
        for line in (scheduler_passed_over(settings), *remarks(plan, settings, model.picture_tokens)):
            if line is not None:
                click.echo(line, err=True)
    _refuse_without_room(settings, ranks, steps_of(settings, plan), model)
    frozen = ((name, each) for name, each in model.named_parameters() if not each.requires_grad)
    frozen_sha256 = checkpoints.tensor_hashes(frozen, ranks)
    config = deepspeed_config(
        settings,
        micro_batch=settings.micro_batch,
        accumulation=micro_steps(settings.global_batch, ranks.world_size, settings.micro_batch),
        dtype="bfloat16" if model.dtype == torch.bfloat16 else "float32",
    )
    encode_one = partial(
        encode_sample,
        chat=chat,
        tokenizer=tokenizer,
        max_length=settings.max_length,
        overlong=settings.overlong,
        picture_tokens=model.picture_tokens,
    )
    held = _hold(settings, ranks)
    ranks.watchdog.now("making DeepSpeed's engine")
    job = Job(settings, ranks, plan, make_engine(model, settings, config), encode_one, tokenizer, held)
    job.begin(frozen_sha256)
    if ranks.first:
        _note_steering(settings)
    return job


def encode_sample(
    turns: Sequence[Turn],
    pictures: int,
    regions: int,
    where: str,
    *,
    chat: str,
    tokenizer: Tokenizer,
    max_length: int,
    overlong: str,
    picture_tokens: int,
) -> tuple[Encoded, bool]:
    """A sample's tokens, pictures spread, and whether they were cut.

    Raises:
        DataError: a picture or region has no place in its conversation, or it is too long where that is an error.
    """
    try:
        encoded = encode(chat, turns, tokenizer, pictures=pictures, regions=regions)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return fitted(encoded, max_length, overlong, picture_tokens, where)


def _refuse_other_settings(settings: Settings) -> None:
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


def _note_steering(settings: Settings) -> None:
    """Have the run's stored settings say what it is steered with from here on; that it may be, has been seen."""
    path = settings.output_dir / SETTINGS_NAME
    before = orjson.loads(path.read_bytes())
    now = {name: value for name, value in settings_as_json(settings).items() if name in STEERING}
    if any(value != before.get(name, []) for name, value in now.items()):
        write_whole(path, orjson.dumps(before | now, option=orjson.OPT_INDENT_2))


def _stored_settings(path: Path) -> Settings:
    try:
        return settings_from_json(read_json(path))
    except ValueError as error:
        raise DataError(
            f"{' '.join(str(error).removeprefix(f'{path}: ').split())}, in {path}: it cannot be told what the run was "
            'begun with; bring the file back, from a copy or from "settings" in a checkpoint.json of the run'
        ) from None


def _refuse_hook(name: str | None, ranks: Ranks) -> None:
    objection = None
    if name is not None and ranks.first:  # which alone will call it
        try:
            imported(name)
        except SettingsError as error:
            objection = str(error)
    ranks.agreed(objection)


def _validation_sets(settings: Settings) -> list[FrozenSet]:
    """Opened here, and again for each validation: nothing of them is held while training goes on."""
    sets = [open_set(path) for path in settings.val_shards]
    for each in sets:
        if not len(each):
            raise SettingsError(f"--val-shards {each.root}: has no samples; leave it out, or give another set")
    return sets


def _refuse_without_room(settings: Settings, ranks: Ranks, steps: int, model: GriffonForConditionalGeneration) -> None:
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


def _hold(settings: Settings, ranks: Ranks) -> BinaryIO | None:
    """Take the run's folder for this run alone, and write the settings into it, once all that they name is there."""
    held, objection = None, None
    if ranks.first:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        try:
            held = hold(
                settings.output_dir / "lock",
                whose=f"{settings.output_dir}: another process trains in it",
                instead="wait for it, end it, or give another --output-dir",
            )
        except (SettingsError, DataError) as error:
            objection = str(error)
    ranks.agreed(objection)
    if ranks.first and not (settings.output_dir / SETTINGS_NAME).exists():
        plain = orjson.dumps(settings_as_json(settings), option=orjson.OPT_INDENT_2)
        write_whole(settings.output_dir / SETTINGS_NAME, plain)
    return held


def _dtype(settings: Settings, ranks: Ranks) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.bfloat16 if ranks.device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[settings.dtype]


def _refuse_little_room(settings: Settings, ranks: Ranks, shows: Shows, config: Any) -> None:  # noqa: ANN401
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
    ranks.agreed(objection)


def _refuse_unfit(sets: Sequence[FrozenSet], config: GriffonConfig) -> None:
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


def _show_parts(model: torch.nn.Module) -> None:
    """How large each part is, how much of it trains, and the attention that it computes with."""
    counts = parameter_counts(model)
    rows: list[tuple[str, ...]] = []
    for part, (whole, trains) in counts.items():
        config = getattr(getattr(model, part), "config", None)  # a projector has no attention
        attention = "" if config is None else str(config._attn_implementation)
        rows.append((part, f"{whole:,}", f"{trains:,}", attention))
    rows.append(("all", *(f"{sum(each):,}" for each in zip(*counts.values(), strict=True)), ""))
    click.echo(table(("part", "parameters", "train", "attention"), rows), err=True)
