"""Sets up a run from its settings, and reports problems with them before the first step."""

import logging
import os
from functools import partial
from typing import BinaryIO

import orjson
import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.support.folder_lock import lock_folder
from griffon_shards.support.tables import table
from griffon_train.config.deepspeed import deepspeed_config, scheduler_passed_over
from griffon_train.config.groups import MemorySettings
from griffon_train.config.order import plan_of, steps_of
from griffon_train.config.run_folder import SETTINGS_NAME
from griffon_train.config.settings import STEERING, Settings, settings_as_json
from griffon_train.data.node_reader import CacheSettings
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import micro_steps
from griffon_train.data.shared_memory import ranks_here
from griffon_train.data.source_stream import Shows
from griffon_train.distributed.process_group import ProcessGroup, transformers_progress
from griffon_train.model.freezing import freeze, parameter_counts
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.lora import require_peft
from griffon_train.text.chat_templates import check_tokenizer, encode_sample
from griffon_train.training import compiling
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
from griffon_train.training.memory_estimate import Ranks
from griffon_train.training.memory_report import memory_line
from griffon_train.training.model_loading import default_chat, map_model, unchecked_parts
from griffon_train.training.optimizers import select_optimizer
from griffon_train.training.own_parts import bring_in
from griffon_train.training.placing import placed
from griffon_train.training.run_state import RunState
from griffon_train.training.shared_reader import shared_reader

_log = logging.getLogger(__name__)


def set_up(settings: Settings, ranks: ProcessGroup) -> RunState:
    """Open the sets, load the model, make the engine, and resume from a checkpoint. Every rank calls this.

    Raises:
        SettingsError: the settings contradict each other, the sets, the model, or those that the run started with.
        DataError: a set, weights or a checkpoint are damaged, or the disk is too small.
    """
    ranks.watchdog.now("opening the sets")
    settings = placed(settings)
    sets = [open_set(path) for path in settings.shards]
    validation_sets = open_validation_sets(settings.logging, settings.checkpointing.keep_best)
    for frozen in (*sets, *validation_sets):
        frozen.check_shards()
    # It imports what it needs while the model is loaded.
    reader = shared_reader((*sets, *validation_sets), _cache(settings), ranks)
    plan = plan_of(sets, settings.data)
    shows = Shows.of(sets)
    optimizer = _check_before_loading(settings, shows, ranks)
    dtype = _dtype(settings.memory, ranks)
    model, tokenizer = _mapped(settings, dtype, ranks)
    check_sets_fit([*sets, *validation_sets], model.config)
    check_worker_memory(settings, ranks, Shows.of([*sets, *validation_sets]), model.config)
    chat = settings.model.chat or default_chat(model)
    check_tokenizer(chat, tokenizer)
    plan.lengths.check(chat, tokenizer)
    _prepare(model, settings, shows)
    if ranks.first:
        _log_start(settings, ranks, plan, model)
    check_disk_room(settings, ranks, steps_of(settings.data, plan), model, dtype)
    config = deepspeed_config(
        settings.memory,
        settings.optimizer,
        micro_batch=settings.data.micro_batch,
        accumulation=micro_steps(settings.data.global_batch, ranks.world_size, settings.data.micro_batch),
        dtype="bfloat16" if dtype == torch.bfloat16 else "float32",
    )
    frozen_sha256 = bring_in(model, dtype, config, ranks)
    encode_one = partial(
        encode_sample,
        chat=chat,
        tokenizer=tokenizer,
        max_length=settings.data.max_length,
        overlong=settings.data.overlong,
        image_tokens=model.image_tokens,
    )
    lock = _lock_run(settings, ranks)
    ranks.watchdog.now("making DeepSpeed's engine")
    if ranks.first:
        _log.info(f"optimizer: {optimizer}")
    engine = make_engine(model, settings.optimizer, config, optimizer)
    run = RunState(settings, ranks, plan, engine, encode_one, tokenizer, frozen_sha256, lock, reader)
    if ranks.first:
        _store_changes(settings)
    return run


def _log_start(settings: Settings, ranks: ProcessGroup, plan: Plan, model: GriffonForConditionalGeneration) -> None:
    """Log what trains, what to look at, and the memory that the run will take."""
    _log_parts(model)
    for line in (
        unchecked_parts(settings),
        scheduler_passed_over(settings.memory, settings.optimizer),
        *remarks(plan, settings.data, model.image_tokens),
    ):
        if line is not None:
            _log.warning(line)
    of_machines = Ranks(count=ranks.world_size, per_machine=ranks_here(), device=ranks.device.type)
    _log.log(*memory_line(model.config, settings, of_machines, plan.lengths))


def _cache(settings: Settings) -> CacheSettings | None:
    data = settings.data
    if data.cache is None or data.cache_size is None:
        return None
    return CacheSettings(folder=data.cache.absolute(), size_bytes=data.cache_size)


def _check_before_loading(settings: Settings, shows: Shows, ranks: ProcessGroup) -> str:
    """Make the checks that need no model, which may take minutes to load; return the optimizer to use."""
    check_same_settings(settings)
    check_taught(settings.freezing.trained_parts(), shows, settings, image_tokens=0)
    if settings.lora.enabled:
        require_peft()
    check_log_hook(settings.logging.log_hook, ranks)
    compiling.announce(settings.memory, settings.optimizer)
    return select_optimizer(settings, ranks)


def _mapped(
    settings: Settings, dtype: torch.dtype, ranks: ProcessGroup
) -> tuple[GriffonForConditionalGeneration, PreTrainedTokenizerBase]:
    """Map the model on every rank; what one rank finds wrong, every rank raises."""
    unfit = damaged = None
    with ranks.at_own_pace("loading the model") as moved, transformers_progress(moved):
        try:
            loaded = map_model(settings, dtype, draws=ranks.first)
        except SettingsError as error:
            unfit = str(error)
        except DataError as error:
            damaged = str(error)
    ranks.raise_if_any(unfit)
    ranks.raise_if_any(damaged, DataError)
    return loaded


def _prepare(model: GriffonForConditionalGeneration, settings: Settings, shows: Shows) -> None:
    """Freeze the parts that do not train, check that the sets teach the others, and set the modes for training."""
    freeze(model, settings.freezing)
    trained = [part for part in settings.freezing.trained_parts() if getattr(model, part) is not None]
    check_taught(trained, shows, settings, image_tokens=model.image_tokens)
    if settings.memory.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.memory.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS is not deterministic
        torch.use_deterministic_algorithms(mode=True)
    model.train()


def _store_changes(settings: Settings) -> None:
    """Update the steps and steering options in the run's stored settings; they were checked when the run resumed."""
    path = settings.output_dir / SETTINGS_NAME
    before = orjson.loads(path.read_bytes())
    now = {name: value for name, value in settings_as_json(settings).items() if name in {*STEERING, "steps"}}
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


def _dtype(memory: MemorySettings, ranks: ProcessGroup) -> torch.dtype:
    if memory.dtype == "auto":
        return torch.bfloat16 if ranks.device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[memory.dtype]


def _log_parts(model: torch.nn.Module) -> None:
    """Log a table of the model's parts: parameters, trained parameters, attention implementation."""
    counts = parameter_counts(model)
    rows: list[tuple[str, ...]] = []
    for part, (total, trained) in counts.items():
        config = getattr(getattr(model, part), "config", None)  # a projector has no attention
        attention = "" if config is None else str(config._attn_implementation)
        rows.append((part, f"{total:,}", f"{trained:,}", attention))
    rows.append(("all", *(f"{sum(each):,}" for each in zip(*counts.values(), strict=True)), ""))
    _log.info("parts of the model:\n%s", table(("part", "parameters", "train", "attention"), rows))
