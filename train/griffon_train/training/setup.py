"""Sets up a run from its settings, and reports problems with them before the first step."""

import os
from functools import partial
from typing import BinaryIO

import click
import orjson
import torch

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.folder_lock import lock_folder
from griffon_shards.support.tables import table
from griffon_train.config.deepspeed import deepspeed_config, scheduler_passed_over
from griffon_train.config.settings import STEERING, Settings, settings_as_json, weights_by_tag
from griffon_train.data.lengths import Lengths
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import micro_steps
from griffon_train.data.source_stream import Shows
from griffon_train.distributed.process_group import ProcessGroup, transformers_progress
from griffon_train.model.freezing import freeze, parameter_counts
from griffon_train.text.chat_templates import check_tokenizer, encode_sample
from griffon_train.training import checkpoints, compiling
from griffon_train.training.checks import (
    check_disk_room,
    check_log_hook,
    check_same_settings,
    check_sets_fit,
    check_worker_memory,
    open_validation_sets,
)
from griffon_train.training.data_checks import check_taught, remarks
from griffon_train.training.engine import make_engine
from griffon_train.training.model_loading import SETTINGS_NAME, default_chat, load_model, placed, unchecked_parts
from griffon_train.training.run_state import RunState, steps_of


def set_up(settings: Settings, ranks: ProcessGroup) -> RunState:
    """Open the sets, load the model, make the engine, and resume from a checkpoint. Every rank calls this.

    Raises:
        SettingsError: the settings contradict each other, the sets, the model, or those that the run started with.
        DataError: a set, weights or a checkpoint are damaged, or the disk is too small.
    """
    ranks.watchdog.now("opening the sets")
    settings = placed(settings)
    sets = [open_set(path) for path in settings.shards]
    validation_sets = open_validation_sets(settings)
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
    check_same_settings(settings)
    shows = Shows.of(sets)
    check_taught(settings.freezing.trained_parts(), shows, settings, image_tokens=0)
    check_log_hook(settings.log_hook, ranks)
    compiling.announce(settings)
    with ranks.at_own_pace("loading the model") as moved, transformers_progress(moved):
        model, tokenizer = load_model(settings, _dtype(settings, ranks))
    check_sets_fit([*sets, *validation_sets], model.config)
    check_worker_memory(settings, ranks, Shows.of([*sets, *validation_sets]), model.config)
    chat = settings.chat or default_chat(model)
    check_tokenizer(chat, tokenizer)
    lengths.check(chat, tokenizer)
    freeze(model, settings.freezing)
    trained = [part for part in settings.freezing.trained_parts() if getattr(model, part) is not None]
    check_taught(trained, shows, settings, image_tokens=model.image_tokens)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS is not deterministic
        torch.use_deterministic_algorithms(mode=True)
    model.train()
    if ranks.first:
        _show_parts(model)
        for line in (
            unchecked_parts(settings),
            scheduler_passed_over(settings),
            *remarks(plan, settings, model.image_tokens),
        ):
            if line is not None:
                ranks.say(line)
    check_disk_room(settings, ranks, steps_of(settings, plan), model)
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
        image_tokens=model.image_tokens,
    )
    lock = _lock_run(settings, ranks)
    ranks.watchdog.now("making DeepSpeed's engine")
    engine = make_engine(model, settings, config)
    run = RunState(settings, ranks, plan, engine, encode_one, tokenizer, frozen_sha256, lock)
    if ranks.first:
        _store_steering(settings)
    return run


def _store_steering(settings: Settings) -> None:
    """Update the steering options in the run's stored settings; they were checked when the run resumed."""
    path = settings.output_dir / SETTINGS_NAME
    before = orjson.loads(path.read_bytes())
    now = {name: value for name, value in settings_as_json(settings).items() if name in STEERING}
    if any(value != before.get(name, []) for name, value in now.items()):
        write_whole(path, orjson.dumps(before | now, option=orjson.OPT_INDENT_2))


def _lock_run(settings: Settings, ranks: ProcessGroup) -> BinaryIO | None:
    """Create the run's folder, lock it, and store the settings in it."""
    lock, problem = None, None
    if ranks.first:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock = lock_folder(
                settings.output_dir / "lock",
                whose=f"{settings.output_dir}: another process is training in this folder",
                instead="wait for it, stop it, or give another --output-dir",
            )
        except (SettingsError, DataError) as error:
            problem = str(error)
    ranks.raise_if_any(problem)
    if ranks.first and not (settings.output_dir / SETTINGS_NAME).exists():
        plain = orjson.dumps(settings_as_json(settings), option=orjson.OPT_INDENT_2)
        write_whole(settings.output_dir / SETTINGS_NAME, plain)
    return lock


def _dtype(settings: Settings, ranks: ProcessGroup) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.bfloat16 if ranks.device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[settings.dtype]


def _show_parts(model: torch.nn.Module) -> None:
    """Print a table of the model's parts: parameters, trained parameters, attention implementation."""
    counts = parameter_counts(model)
    rows: list[tuple[str, ...]] = []
    for part, (total, trained) in counts.items():
        config = getattr(getattr(model, part), "config", None)  # a projector has no attention
        attention = "" if config is None else str(config._attn_implementation)
        rows.append((part, f"{total:,}", f"{trained:,}", attention))
    rows.append(("all", *(f"{sum(each):,}" for each in zip(*counts.values(), strict=True)), ""))
    click.echo(table(("part", "parameters", "train", "attention"), rows), err=True)
