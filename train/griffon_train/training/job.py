"""A run made ready: plan, model, engine and the step to go on with; and what is done with them beside training."""

import importlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import BinaryIO

import click
import orjson
import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.errors import DataError, SettingsError
from griffon_shards.files import write_whole
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.holding import hold
from griffon_shards.tables import table
from griffon_shards.types import Turn
from griffon_train.chat import Encoded, Tokenizer, check_tokenizer, encode, fitted
from griffon_train.cursor import cursor_state, restore_cursor
from griffon_train.deepspeed_config import deepspeed_config
from griffon_train.lengths import Lengths
from griffon_train.loader import Encode, Loader
from griffon_train.model.config import GriffonConfig
from griffon_train.model.freezing import freeze, parameter_counts
from griffon_train.plan import Plan
from griffon_train.settings import Settings, differences, settings_as_json, settings_from_json, weights_by_tag
from griffon_train.split import micro_steps
from griffon_train.sweep import Order, Sweep
from griffon_train.training import checkpoints
from griffon_train.training.engine import Engine, Rates, make_engine
from griffon_train.training.export import export
from griffon_train.training.fragments import ShardedState
from griffon_train.training.inputs import inputs_of
from griffon_train.training.loading import MODEL_NAME, PROJECTOR_NAME, SETTINGS_NAME, default_chat, load_model
from griffon_train.training.loss import loss_sums
from griffon_train.training.metrics import Hook, Reporter, StepFigures
from griffon_train.training.ranks import Ranks
from griffon_train.training.tallies import Tally


class Job:
    """What training works with.

    Attributes:
        settings: of the run.
        ranks: this process among the others.
        plan: what comes when.
        engine: DeepSpeed's.
        dtype: that the model computes in.
        start: first step to come.
        steps: of the whole run.
        rates: the engine's learning rates.
        last_save_s: seconds that the last checkpoint took; 0 before the first.
    """

    def __init__(
        self,
        settings: Settings,
        ranks: Ranks,
        plan: Plan,
        engine: Engine,
        encode: Encode,
        tokenizer: PreTrainedTokenizerBase,
        held: BinaryIO | None,
    ) -> None:
        self.settings, self.ranks, self.plan, self.engine = settings, ranks, plan, engine
        self.dtype = engine.module.dtype
        self.steps = steps_of(settings, plan)
        self.rates = Rates(engine)
        self.last_save_s = 0.0
        self._encode, self._tokenizer, self._held = encode, tokenizer, held
        self._state = ShardedState(engine)
        self._frozen_sha256: Mapping[str, str] = {}
        self._reporter: Reporter | None = None
        self.start = 0

    def begin(self, frozen_sha256: Mapping[str, str]) -> None:
        """Go on from the last whole checkpoint, or begin anew."""
        self._frozen_sha256 = frozen_sha256
        found, passed = checkpoints.newest(self.settings.output_dir)
        for line in passed:
            self.say(line)
        if found is not None:
            self.start = restore_cursor(found.index["cursor"], self.plan)
            changed = sorted(k for k, v in frozen_sha256.items() if found.index["frozen_sha256"].get(k) != v)
            if changed:
                raise SettingsError(
                    f"{found.path}: the frozen weights are not those that the run began with, such as {changed[0]} "
                    f"({len(changed)} in all): the model that it was given has changed since; bring it back, or begin "
                    "a new run"
                )
            sizes = {
                name: int(getattr(each, "ds_numel", each.numel()))
                for name, each in self.engine.module.named_parameters()
                if each.requires_grad
            }
            checkpoints.restore(found, self._state, sizes)
            self.say(f"going on with step {self.start} of {self.steps}, from {found.path}")
        if self.ranks.first:
            self._reporter = Reporter(
                self.settings.output_dir,
                start=self.start,
                steps=self.steps,
                log_every=self.settings.log_every,
                hook=_hook(self.settings.log_hook),
            )

    def loader(self, *, order: Order | None = None, start: int = 0, stop: int) -> Loader:
        """This rank's micro-batches of some steps of the plan, or of another order."""
        config = self.engine.module.config
        region = config.region_config
        return Loader(
            order or self.plan,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            micro_batch=self.settings.micro_batch,
            workers=self.settings.workers,
            encode=self._encode,
            start=start,
            stop=stop,
            image_px=config.vision_config.image_size,
            region_px=config.vision_config.image_size if region is None else region.image_size,
        )

    def report(self, figures: StepFigures) -> None:
        """Tell a step."""
        if self._reporter is not None:
            self._reporter.step(figures)

    def say(self, line: str) -> None:
        """Say a line, once for all ranks."""
        if self.ranks.first:
            click.echo(line, err=True)

    @torch.no_grad()
    def validate(self, step: int) -> None:
        """The loss on the validation sets, every sample once."""
        sweep = Sweep([open_set(path) for path in self.settings.val_shards], self.plan.global_batch)
        tally = Tally()
        self.engine.eval()
        for batch in self.loader(order=sweep, stop=sweep.steps):
            tally.add(batch, loss_sums(self.engine, inputs_of(batch, self.ranks.device, self.dtype)))
        self.engine.train()
        whole = tally.over(self.ranks)
        if self._reporter is not None:
            self._reporter.validation(step, {"all": whole.loss, **whole.loss_by_group})

    def save(self, done: int) -> None:
        """Write a checkpoint after `done` steps."""
        began = time.monotonic()
        extra = {
            "cursor": cursor_state(self.plan, done),
            "settings": settings_as_json(self.settings),
            "world_size": self.ranks.world_size,
            "frozen_sha256": self._frozen_sha256,
        }
        path = checkpoints.save(self.settings.output_dir, done, self._state, extra, keep=self.settings.keep)
        self.last_save_s = max(self.ranks.gathered(time.monotonic() - began))
        self.say(f"checkpoint {path} in {self.last_save_s:.1f} s")

    def finish(self) -> None:
        """Write what the run was for, unless an earlier start of it has."""
        run, alone = self.settings.output_dir, self.settings.freezing.trained_parts() == ("projector",)
        result = run / (PROJECTOR_NAME if alone else MODEL_NAME)
        if self.start < self.steps or not result.exists():
            export(result, self.engine, self._tokenizer, self.ranks, projector_alone=alone)
        self.say(f"done: {self.steps} steps; {result}; metrics, timing and checkpoints in {run}")

    def close(self) -> None:
        """Close what the run wrote into."""
        if self._reporter is not None:
            self._reporter.close()
        if self._held is not None:
            self._held.close()


def prepared(settings: Settings, ranks: Ranks) -> Job:
    """Everything from settings to the first step.

    Raises:
        SettingsError: settings, sets, model and an earlier start of the run do not fit each other.
    """
    sets = [open_set(path) for path in settings.shards]
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
    model, tokenizer = load_model(settings, _dtype(settings, ranks))
    _refuse_unfit([*sets, *map(open_set, settings.val_shards)], model.config)
    chat = settings.chat or default_chat(model)
    check_tokenizer(chat, tokenizer)
    freeze(model, settings.freezing)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if settings.deterministic:
        torch.use_deterministic_algorithms(mode=True)
    model.train()
    if ranks.first:
        _show_parts(model)
    frozen = ((name, each) for name, each in model.named_parameters() if not each.requires_grad)
    frozen_sha256 = checkpoints.tensor_hashes(frozen)
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
    job = Job(settings, ranks, plan, make_engine(model, settings, config), encode_one, tokenizer, held)
    job.begin(frozen_sha256)
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


def steps_of(settings: Settings, plan: Plan) -> int:
    """Steps of the whole run."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None, "a run has steps or epochs"
    return plan.first_step(settings.epochs)


def _refuse_other_settings(settings: Settings) -> None:
    path = settings.output_dir / SETTINGS_NAME
    if path.exists():
        changed = differences(settings_from_json(orjson.loads(path.read_bytes())), settings)
        if changed:
            raise SettingsError(
                f"{settings.output_dir} holds a run with other settings: {'; '.join(changed)}. Give it the settings "
                "that it had, or another --output-dir"
            )


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
        except SettingsError as error:
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


def _refuse_unfit(sets: Sequence[FrozenSet], config: GriffonConfig) -> None:
    """Sets that the model could not read, or would learn to write otherwise than it does."""
    for each in sets:
        written = each.lock.render["boxes"]
        if written != config.box_style:
            raise SettingsError(
                f"{each.root} has {written} boxes, and the model writes {config.box_style} ones: freeze the set with "
                f"`griffon-prep build --boxes {config.box_style}`, or train with --boxes {written}"
            )
        pointing = [source.tag for source in each.lock.sources if source.task == "VISJ" and source.samples]
        if pointing and config.region_config is None:
            raise SettingsError(
                f"{each.root}: {', '.join(pointing)} shows crops, and the model has no tower to see them: give "
                "--region-tower, or freeze a set without VISJ"
            )


def _show_parts(model: torch.nn.Module) -> None:
    counts = parameter_counts(model)
    rows: list[tuple[str, ...]] = [(part, f"{whole:,}", f"{trains:,}") for part, (whole, trains) in counts.items()]
    rows.append(("all", *(f"{sum(each):,}" for each in zip(*counts.values(), strict=True))))
    click.echo(table(("part", "parameters", "train"), rows), err=True)


def _hook(name: str | None) -> Hook | None:
    if name is None:
        return None
    module, _, function = name.partition(":")
    try:
        found: Hook = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"--log-hook {name}: {error}; give it as module:function, on PYTHONPATH") from None
    return found
