"""A run at work: what training works with, and what is done beside training: checkpoints, validation, the result."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

import click
import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.settings import Settings, settings_as_json
from griffon_train.data.batch import Encode
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.loader import Loader
from griffon_train.data.plan import Plan
from griffon_train.data.sequential_order import SequentialOrder, StepOrder
from griffon_train.data.steering import Steering
from griffon_train.training import checkpoint_folders, checkpoints
from griffon_train.training.collate import collate
from griffon_train.training.distributed import ProcessGroup
from griffon_train.training.engine import Engine, Rates
from griffon_train.training.export import export
from griffon_train.training.loss import loss_sums
from griffon_train.training.loss_stats import LossAccumulator
from griffon_train.training.metrics import Reporter, StepFigures
from griffon_train.training.model_loading import MODEL_NAME, PROJECTOR_NAME, default_chat
from griffon_train.training.zero_shards import ShardedState


class RunState:
    """What training works with.

    Attributes:
        settings: of the run.
        ranks: this process among the others.
        plan: what comes when.
        engine: DeepSpeed's.
        dtype: that the model computes in.
        start: first step to come.
        steps: of the whole run.
        steering: which steps are left out, and learning rates from a step on.
        rates: the engine's learning rates.
    """

    def __init__(
        self,
        settings: Settings,
        ranks: ProcessGroup,
        plan: Plan,
        engine: Engine,
        encode: Encode,
        tokenizer: PreTrainedTokenizerBase,
        held: BinaryIO | None,
    ) -> None:
        self.settings, self.ranks, self.plan, self.engine = settings, ranks, plan, engine
        self.dtype = engine.module.dtype
        self.steps = steps_of(settings, plan)
        self.steering = Steering.of(settings.skip_steps, settings.lr_from)
        self.rates = Rates(engine)
        self._encode, self._tokenizer, self._held = encode, tokenizer, held
        self._state = ShardedState(engine)
        self._frozen_sha256: Mapping[str, str] = {}
        self._reporter: Reporter | None = None
        self.start = self._saved = 0  # the steps that the run goes on from, and of its newest whole checkpoint

    def begin(self, frozen_sha256: Mapping[str, str]) -> None:
        """Go on from the last whole checkpoint, or begin anew."""
        self._frozen_sha256 = frozen_sha256
        run = self.settings.output_dir
        found, passed = checkpoint_folders.latest(run, self.ranks)
        for line in passed:
            self.say(line)
        if self.ranks.first:
            checkpoint_folders.remove_partial(run)
        if found is not None:
            self.start = self._saved = restore_cursor(found.index["cursor"], self.plan, self.steering)
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
            checkpoints.restore(found, self._state, sizes, self.ranks)
            self.say(f"going on with step {self.start} of {self.steps}, from {found.path}")
            if self.ranks.first:
                for line in checkpoint_folders.set_aside(run, self.start):
                    self.say(line)
            self._prune()
        if self.ranks.first:
            self._reporter = Reporter(
                run,
                start=self.start,
                steps=self.steps,
                log_every=self.settings.log_every,
                hook=self.settings.log_hook,
            )

    def loader(self, *, order: StepOrder | None = None, start: int = 0, stop: int) -> Loader:
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
            skipped=self.steering if order is None else (),
            image_px=config.vision_config.image_size,
            region_px=config.vision_config.image_size if region is None else region.image_size,
            stall_s=self.settings.stall_s,
            company=self.ranks,
        )

    def report(self, figures: StepFigures) -> None:
        """Tell a step.

        Raises:
            DataError: it cannot be written down.
        """
        if self._reporter is not None:
            with self._writing_down(f"step {figures.step}"):
                self._reporter.step(figures)

    @contextmanager
    def _writing_down(self, what: str) -> Iterator[None]:
        """Metrics are the run's record, so it ends where they cannot be written; the checkpoint stands."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{error.filename}: {error.strerror}; {what} is not written down, and the run ends. {self._stands()}; "
                "once the file can be written, with room made if the disk is full, the same command goes on"
            ) from None

    def _stands(self) -> str:
        return "There is no checkpoint yet" if not self._saved else f"The checkpoint at step {self._saved} stands"

    def skip(self, step: int) -> None:
        """Leave a step out, and tell it."""
        if self._reporter is not None:
            order = self.plan.step(step)
            self._reporter.skipped({"step": step, "skipped": True, "epoch": order.epoch, "group": order.group})

    def say(self, line: str) -> None:
        """Say a line, once for all ranks."""
        if self.ranks.first:
            click.echo(line, err=True)

    def validates_after(self, done: int) -> bool:
        """Whether validation is due after so many steps."""
        every = self.settings.val_steps
        return every is not None and (done % every == 0 or done == self.steps)

    def make_up_validation(self) -> None:
        """Validate where the run was stopped between a checkpoint and the validation after it."""
        last = self.start - 1
        (told,) = self.ranks.sums([self._reporter is not None and self._reporter.validated(last)])
        if self.start and self.validates_after(self.start) and not told:
            self.validate(last)

    def validate(self, step: int) -> None:
        """The loss on the validation sets, every sample once.

        Raises:
            DataError: a sample cannot be read, or the loss not be written down.
        """
        try:
            self._validate(step)
        except DataError as error:
            raise DataError(
                f"validating after step {step}: {error}. {self._stands()}, and the same command goes on from it with "
                "this validation; to go on without, leave --val-shards and --val-steps out"
            ) from None

    @torch.no_grad()
    def _validate(self, step: int) -> None:
        sweep = SequentialOrder([open_set(path) for path in self.settings.val_shards], self.plan.global_batch)
        tally = LossAccumulator()
        self.engine.eval()
        for batch in self.loader(order=sweep, stop=sweep.steps):
            self.ranks.watchdog.now(f"validating after step {step}")
            tally.add(batch, loss_sums(self.engine, collate(batch, self.ranks.device, self.dtype)))
        self.engine.train()
        whole = tally.over(self.ranks)
        if self._reporter is not None:
            with self._writing_down("its loss"):
                self._reporter.validation(step, {"all": whole.loss, **whole.loss_by_group})

    def save(self, done: int) -> None:
        """Write a checkpoint after `done` steps, and delete those that are not to be kept.

        Raises:
            DataError: it cannot be written.
        """
        began = time.monotonic()
        if self._reporter is not None:
            with self._writing_down(f"step {done - 1}"):
                self._reporter.sync()
        extra = {
            "cursor": cursor_state(self.plan, done, self.steering),
            "settings": settings_as_json(self.settings),
            "world_size": self.ranks.world_size,
            "frozen_sha256": self._frozen_sha256,
        }
        try:
            path = checkpoints.save(self.settings.output_dir, done, self._state, extra, self.ranks)
        except DataError as error:
            raise DataError(f"{error}. {self._stands()}; the same command goes on once it can be written") from None
        self._saved = done
        self.say(f"checkpoint {path} in {time.monotonic() - began:.1f} s")
        self._prune()

    def _prune(self) -> None:
        """A checkpoint that cannot be deleted costs room and nothing else, so the run goes on."""
        with self.ranks.at_own_pace("deleting older checkpoints") as moved:
            try:
                if self.ranks.first:
                    checkpoint_folders.prune(self.settings.output_dir, self._saved, self.settings.keep, moved)
            except OSError as error:
                self.say(f"{error.filename}: {error.strerror}; an older checkpoint is not deleted, and the run goes on")

    def stop(self, done: int, number: int) -> None:
        """Save what is not saved yet, after `done` steps, for a rank was asked to stop by a signal.

        Raises:
            SystemExit: always.
        """
        if done > self._saved:
            self.save(done)
        self.say(
            f"stopped by {signal.Signals(number).name} after step {done}/{self.steps}; "
            + (f"saved: the same command resumes from step {done}" if done else "the same command begins anew")
        )
        raise SystemExit(128 + number)

    def finish(self) -> None:
        """Write what the run was for, unless an earlier start of it has.

        Raises:
            DataError: it cannot be written.
        """
        run, alone = self.settings.output_dir, self.settings.freezing.trained_parts() == ("projector",)
        result = run / (PROJECTOR_NAME if alone else MODEL_NAME)
        if self.start < self.steps or not result.exists():
            chat = self.settings.chat or default_chat(self.engine.module)
            try:
                export(result, self.engine, self._tokenizer, self.ranks, chat=chat, projector_alone=alone)
            except DataError as error:
                raise DataError(
                    f"{error}. All {self.steps} steps are trained. {self._stands()}: make room, and the same command "
                    "writes the result from it"
                ) from None
        self.say(f"done: {self.steps} steps; {result}; metrics, timing and checkpoints in {run}")

    def close(self) -> None:
        """Close what the run wrote into."""
        if self._reporter is not None:
            self._reporter.close()
        if self._held is not None:
            self._held.close()


def steps_of(settings: Settings, plan: Plan) -> int:
    """Steps of the whole run."""
    if settings.steps is not None:
        return settings.steps
    assert settings.epochs is not None, "a run has steps or epochs"
    return plan.steps_of(settings.epochs)
