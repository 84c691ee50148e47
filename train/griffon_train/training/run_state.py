"""The state of a run, with everything that happens around its steps: loading, logging, validation, the result."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import size
from griffon_train.config.order import steps_of
from griffon_train.config.run_folder import PROJECTOR_NAME, result_name
from griffon_train.config.settings import Settings
from griffon_train.data.batch import Encode
from griffon_train.data.loader import Loader
from griffon_train.data.node_reader import NodeReader, needs_server
from griffon_train.data.plan import Plan
from griffon_train.data.sequential_order import SequentialOrder, StepOrder
from griffon_train.data.steering import Steering
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.evaluation.saved_model import LoadedModel
from griffon_train.model.collate import InputsAhead
from griffon_train.model.flops import ModelFlops, StepCounts, peak_flops
from griffon_train.model.loss import loss_sums
from griffon_train.training.adapter_export import export_adapter
from griffon_train.training.best_checkpoint import record_best
from griffon_train.training.checkpoint_folders import size_of
from griffon_train.training.engine import Engine, Rates
from griffon_train.training.export import export
from griffon_train.training.metrics import Reporter, StepFigures
from griffon_train.training.model_loading import default_chat
from griffon_train.training.profiling import StepProfile
from griffon_train.training.run_checkpoints import RunCheckpoints
from griffon_train.training.shared_reader import log_reads
from griffon_train.training.validation_figures import ValidationLosses, validation_scores

_log = logging.getLogger(__name__)


class RunState:
    """A run that is ready to train.

    Attributes:
        settings: settings of the run.
        ranks: process group.
        plan: order of the samples.
        engine: DeepSpeed engine.
        dtype: floating-point type of the model.
        start: the next step, from 0; the number of steps restored from a checkpoint.
        steps: number of steps of the run.
        steering: steps to skip, and changes of the learning rate.
        rates: learning rates of the engine.
        inputs: brings micro-batches to the device.
        profile: records the steps of `--profile-steps`.
    """

    def __init__(
        self,
        settings: Settings,
        ranks: ProcessGroup,
        plan: Plan,
        engine: Engine,
        encode: Encode,
        tokenizer: PreTrainedTokenizerBase,
        frozen_sha256: Mapping[str, str],
        lock: BinaryIO | None,
        reader: NodeReader | None,
    ) -> None:
        """Restore the latest complete checkpoint, if there is one, and open the log files. Every rank calls this.

        Args:
            settings: settings of the run.
            ranks: process group.
            plan: order of the samples.
            engine: DeepSpeed engine around a model that was not trained yet.
            encode: tokenizes a sample.
            tokenizer: saved with the result.
            frozen_sha256: SHA-256 of each frozen weight, by name.
            lock: lock file of the run's folder; None except on rank 0.
            reader: this machine's reading process, if there is one.

        Raises:
            SettingsError: the frozen weights differ from those that the run started with.
            DataError: no checkpoint is complete, or it has other parameters.
        """
        self.settings, self.ranks, self.plan, self.engine = settings, ranks, plan, engine
        self.dtype = engine.module.dtype
        self.steps = steps_of(settings.data, plan)
        self.steering = Steering.of(settings.optimizer.skip_steps, settings.optimizer.lr_from)
        self.rates = Rates(engine)
        self.inputs = InputsAhead(ranks.device, self.dtype)
        self.profile = StepProfile(settings.output_dir, settings.logging.profile_steps, ranks.rank, ranks.device)
        self._flops = ModelFlops(engine.module)
        self._encode, self._tokenizer, self._lock, self._reader = encode, tokenizer, lock, reader
        self._frozen_sha256 = frozen_sha256
        self._checkpoints = RunCheckpoints(settings, ranks, plan, self.steering, engine, frozen_sha256)
        self.start = self._checkpoints.resume(self.steps)
        self._reporter = self._open_reporter()

    def _open_reporter(self) -> Reporter | None:
        if not self.ranks.first:
            return None
        return Reporter(
            self.settings.output_dir,
            start=self.start,
            steps=self.steps,
            log_every=self.settings.logging.log_every,
            hook=self.settings.logging.log_hook,
        )

    def loader(self, *, order: StepOrder | None = None, start: int = 0, stop: int) -> Loader:
        """This rank's micro-batches of steps [start, stop) of the plan, or of another order."""
        config = self.engine.module.config
        region = config.region_config
        cached = order is None and self.settings.data.cache is not None
        served = cached or needs_server(order or self.plan)
        return Loader(
            order or self.plan,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            micro_batch=self.settings.data.micro_batch,
            workers=self.settings.data.workers,
            encode=self._encode,
            start=start,
            stop=stop,
            skipped=self.steering if order is None else (),
            image_px=config.vision_config.image_size,
            region_px=config.vision_config.image_size if region is None else region.image_size,
            stall_s=self.settings.logging.stall_s,
            stop_signal=self.ranks,
            pinned=self.ranks.device.type == "cuda",
            reader=self._reader if served else None,
            cached=cached,
        )

    def device_figures(self, counts: StepCounts, seconds: float) -> dict[str, Any]:
        """Figures of a step about its devices: their number, and on GPUs how much of them it used."""
        figures: dict[str, Any] = {"devices": self.ranks.world_size}
        device = self.ranks.device
        if device.type == "cuda":
            figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
            peak = peak_flops(torch.cuda.get_device_name(device)) if self.dtype == torch.bfloat16 else None
            if peak is not None:
                figures["mfu"] = self._flops.of(counts) / seconds / self.ranks.world_size / peak
        return figures

    def report(self, figures: StepFigures) -> None:
        """Log a step.

        Raises:
            DataError: the log cannot be written.
        """
        if self._reporter is not None:
            with self._logging(f"step {figures.step}"):
                self._reporter.step(figures)

    @contextmanager
    def _logging(self, what: str) -> Iterator[None]:
        """End the run if its metrics, which are its record, cannot be written."""
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{error.filename}: {error.strerror}; {what} could not be logged, and the run ends. "
                f"{self._checkpoints.latest_line()}; make the file writable (free space if the disk is full), then "
                "rerun the same command to resume"
            ) from None

    def skip(self, step: int) -> None:
        """Log that a step is skipped."""
        if self._reporter is not None:
            order = self.plan.step(step)
            self._reporter.skipped({"step": step, "skipped": True, "epoch": order.epoch, "group": order.group})

    def validates_after(self, done: int) -> bool:
        """Whether validation is due after `done` steps."""
        every = self.settings.logging.val_steps
        return every is not None and (done % every == 0 or done == self.steps)

    def make_up_validation(self) -> None:
        """Validate if the run was stopped between a checkpoint and the validation after it."""
        last = self.start - 1
        (logged,) = self.ranks.sums([self._reporter is not None and self._reporter.validated(last)])
        if self.start and self.validates_after(self.start) and not logged:
            self.validate(last)

    def validate(self, step: int) -> None:
        """Compute and log the loss on the validation sets, over every sample once.

        Raises:
            DataError: a sample cannot be read, or the log cannot be written.
        """
        try:
            self._validate(step)
        except DataError as error:
            raise DataError(
                f"validating after step {step}: {error}. {self._checkpoints.latest_line()}; rerun the same command to "
                "resume with this validation, or leave --val-shards and --val-steps out to resume without"
            ) from None

    def _validate(self, step: int) -> None:
        sets = [open_set(path) for path in self.settings.logging.val_shards]
        order = SequentialOrder(sets, self.plan.global_batch)
        self.engine.eval()
        losses = ValidationLosses(order)
        for batch, inputs in self.inputs.of(self.loader(order=order, stop=order.steps)):
            self.ranks.watchdog.now(f"validating after step {step}")
            with torch.no_grad():
                losses.add(batch, loss_sums(self.engine, inputs))
        totals = losses.over(self.ranks)
        samples = self.settings.logging.val_generate
        if samples is not None:
            model = self.engine.module
            loaded = LoadedModel(model, self._tokenizer, self.settings.model.chat or default_chat(model))
            scores = validation_scores(loaded, sets, samples, self.settings.data.micro_batch, self.ranks)
            totals = replace(totals, scores=scores)
        self.engine.train()
        figure = self.settings.checkpointing.keep_best
        if self._reporter is not None:
            with self._logging("its loss"):
                self._reporter.validation(step, totals)
                if figure is not None:
                    record_best(self.settings.output_dir, figure)
        if figure is not None:
            self._checkpoints.prune(step + 1)

    def save(self, done: int) -> None:
        """Write a checkpoint after `done` steps, and delete old ones.

        Raises:
            DataError: the checkpoint cannot be written.
        """
        began = time.monotonic()
        if self._reporter is not None:
            with self._logging(f"step {done - 1}"):
                self._reporter.sync()
        path = self._checkpoints.save(done)
        seconds, written = time.monotonic() - began, size_of(path)
        _log.info(f"checkpoint {path}: {size(written)} in {seconds:.1f} s ({size(written / seconds)}/s)")
        self._checkpoints.prune(done)

    def saves_after(self, done: int) -> bool:
        """Whether a checkpoint is due after `done` steps."""
        kept = self.settings.checkpointing
        best = kept.keep_best is not None and self.validates_after(done)
        return best or done % kept.save_steps == 0 or done == self.steps

    def stop(self, done: int, number: int) -> None:
        """Save a checkpoint after `done` steps if there is none yet, then exit, because a signal asked a rank to stop.

        Raises:
            SystemExit: always.
        """
        if done > self._checkpoints.saved:
            self.save(done)
        self.profile.close()
        again = f"saved: rerun the same command to resume at step {done}" if done else "rerun the same command to start"
        if self.ranks.first:
            name = signal.Signals(number).name
            _log.warning("stopped by %s after step %d/%d; %s", name, done, self.steps, again)
        raise SystemExit(128 + number)

    def finish(self) -> None:
        """Write the result, unless it exists and no step was trained.

        Raises:
            DataError: the result cannot be written.
        """
        self.profile.close()
        run = self.settings.output_dir
        result = run / result_name(self.settings)
        if self.start < self.steps or not result.exists():
            try:
                self._export(result)
            except DataError as error:
                raise DataError(
                    f"{error}. All {self.steps} steps are trained. {self._checkpoints.latest_line()}: free space, then "
                    "rerun the same command to write the result"
                ) from None
        _log.info("done: %d steps; %s; metrics, timing and checkpoints in %s", self.steps, result, run)

    def _export(self, result: Path) -> None:
        model, chat = self.engine.module, self.settings.model.chat or default_chat(self.engine.module)
        if self.settings.lora.enabled:
            export_adapter(
                result,
                model,
                self._tokenizer,
                self.ranks,
                settings=self.settings,
                frozen_sha256=self._frozen_sha256,
                chat=chat,
            )
            return
        alone = result.name == PROJECTOR_NAME
        export(result, self.engine, self._tokenizer, self.ranks, chat=chat, projector_alone=alone)

    def close(self) -> None:
        """Close the log files, end the reading process and release the run's folder."""
        if self._reporter is not None:
            self._reporter.close()
        if self._reader is not None:
            log_reads(self._reader, self.ranks)
            self._reader.stop()
        if self._lock is not None:
            self._lock.close()
