"""Reports the figures of a run: in files, to TensorBoard, to a user's hook, and as log lines.

`metrics.jsonl` is bit-identical for two equal runs; `timing.jsonl` has the figures that depend on the clock.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.support.tables import size
from griffon_train.config.run_folder import METRICS, TIMING, VALIDATION
from griffon_train.training.log_files import Appended
from griffon_train.training.log_hook import Hook
from griffon_train.training.tensorboard_file import Board
from griffon_train.training.validation_figures import ValidationTotals

_log = logging.getLogger(__name__)

_CHARTS = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait", "mfu", "peak_memory_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """Figures of a step.

    Attributes:
        step: number of the step, from 0.
        metrics: figures that do not depend on the clock.
        samples: number of samples in the global batch.
        tokens: number of tokens in the global batch, with image tokens and without padding.
        seconds: duration of the step.
        wait_s: time that rank 0 waited for data, part of `seconds`.
        devices: number of ranks.
        mfu: share of the GPUs' operations that the model needed (`griffon_train.model.flops`); None if unknown.
        peak_memory_bytes: most memory that tensors took on rank 0's GPU so far; None on the CPU.
    """

    step: int
    metrics: Mapping[str, Any]
    samples: int
    tokens: int
    seconds: float
    wait_s: float
    devices: int
    mfu: float | None = None
    peak_memory_bytes: int | None = None

    @property
    def timing(self) -> dict[str, Any]:
        """Figures that depend on the clock."""
        timing = {
            "step": self.step,
            "seconds": round(self.seconds, 6),
            "samples_per_s": round(self.samples / self.seconds, 3),
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "tokens_per_s_per_device": round(self.tokens / self.seconds / self.devices, 1),
            "data_wait": round(self.wait_s / self.seconds, 4),
        }
        if self.mfu is not None:
            timing["mfu"] = round(self.mfu, 4)
        if self.peak_memory_bytes is not None:
            timing["peak_memory_bytes"] = self.peak_memory_bytes
        return timing


class Reporter:
    """Writes the log files of a run and logs its progress. Exists on rank 0 only."""

    def __init__(self, run: Path, *, start: int, steps: int, log_every: int, hook: str | None) -> None:
        """Open the files, truncated to the step that the run resumes at.

        Args:
            run: folder of the run.
            start: the next step.
            steps: number of steps of the run.
            log_every: number of steps between log lines.
            hook: function called with every step's figures, as module:function.

        Raises:
            SettingsError: there is no such hook.
            OSError: a file cannot be written; the error has its name. All methods that write raise it, too.
        """
        for name in (METRICS, TIMING, VALIDATION):
            damage = truncate_to_step(run / name, start)
            if damage:
                _log.warning(damage)
        self._validated = _last_step(run / VALIDATION)
        self._files = {name: Appended(run / name) for name in (METRICS, TIMING, VALIDATION)}
        self._board: Board | None = None
        self._hook = None if hook is None else Hook(hook, _log.warning)
        self._steps, self._log_every = steps, log_every
        self._began, self._start = time.monotonic(), start
        self._samples = self._overlong = self._without_targets = 0  # since the last log line
        try:
            self._board = Board(run / "tensorboard", start=start)
        except OSError as error:
            self._without_board(error, start)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()
        if self._hook is not None:
            self._hook.close()

    def sync(self) -> None:
        """Flush the files to disk, so that after a power cut they are no older than the checkpoint written next."""
        for file in self._files.values():
            file.sync()

    def validated(self, step: int) -> bool:
        """Whether the validation loss after a step is logged already."""
        return self._validated == step

    def step(self, figures: StepFigures) -> None:
        """Log a step."""
        self._write(METRICS, figures.metrics)
        self._write(TIMING, figures.timing)
        fields = {**figures.metrics, **figures.timing}
        charts = {f"train/{name}": fields[name] for name in _CHARTS if name in fields}
        charts |= {f"train/loss/{group}": value for group, value in figures.metrics["loss_by_task"].items()}
        self._show(charts, figures.step)
        if self._hook is not None:
            self._hook.give(figures.step, fields)
        self._samples += figures.samples
        self._overlong += figures.metrics["overlong"]
        self._without_targets += figures.metrics["without_targets"]
        done = figures.step + 1
        if done % self._log_every == 0 or done == self._steps or done == self._start + 1:
            _log.info(self._line(fields, done))

    def skipped(self, fields: Mapping[str, Any]) -> None:
        """Log that a step was skipped."""
        self._write(METRICS, fields)
        _log.info("step %d/%d  skipped (--skip-steps)", fields["step"] + 1, self._steps)

    def validation(self, step: int, totals: ValidationTotals) -> None:
        """Log the validation losses after a step."""
        fields = {
            "step": step,
            "validation_loss": totals.by_group,
            "by_set": totals.by_set,
            "by_source": totals.by_source,
            **({"scores": totals.scores} if totals.scores else {}),
        }
        self._write(VALIDATION, fields)
        self._validated = step
        self._show({f"validation/{name}": value for name, value in totals.figures().items()}, step)
        if self._hook is not None:
            self._hook.give(step, fields)
        losses = "  ".join(f"{group} {loss:.4f}" for group, loss in totals.by_group.items())
        _log.info("step %d/%d  validation  %s", step + 1, self._steps, losses)
        for tag, scores in totals.scores.items():
            shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            _log.info("step %d/%d  %s  %s", step + 1, self._steps, tag, shown)

    def _write(self, name: str, fields: Mapping[str, Any]) -> None:
        self._files[name].write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))

    def _show(self, charts: Mapping[str, float], step: int) -> None:
        if self._board is None:
            return
        try:
            for name, value in charts.items():
                self._board.add(name, value, step)
        except OSError as error:
            self._board.close()
            self._board = None
            self._without_board(error, step)

    def _without_board(self, error: OSError, step: int) -> None:
        _log.warning(
            f"{error.filename}: {error.strerror}; the run continues without TensorBoard from step {step} on, until it "
            f"is started again; {METRICS} has all figures"
        )

    def _line(self, fields: Mapping[str, Any], done: int) -> str:
        rate = (time.monotonic() - self._began) / (done - self._start)
        minutes, seconds = divmod(round(rate * (self._steps - done)), 60)
        counts = {"overlong": self._overlong, "without targets": self._without_targets}
        shares = "".join(f"{name} {count / self._samples:.0%}  " for name, count in counts.items() if count)
        self._samples = self._overlong = self._without_targets = 0
        left = f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        return (
            f"step {done}/{self._steps}  loss {fields['loss']:.4f}  lr {fields['lr']:.3g}  "
            f"norm {fields['grad_norm']:.3g}  "
            f"{fields['samples_per_s']:.1f} samples/s  {fields['tokens_per_s_per_device']:,.0f} tokens/s per device  "
            f"{_gpu_figures(fields)}data wait {fields['data_wait']:.0%}  {shares}{left}"
        )


def _gpu_figures(fields: Mapping[str, Any]) -> str:
    mfu = f"MFU {fields['mfu']:.1%}  " if "mfu" in fields else ""
    memory = f"peak {size(fields['peak_memory_bytes'])}  " if "peak_memory_bytes" in fields else ""
    return mfu + memory


def first_logged(run: Path, steps: int) -> list[Mapping[str, Any]]:
    """The metrics of the first steps of a run, without skipped steps."""
    with (run / METRICS).open("rb") as file:
        lines = (orjson.loads(line) for line in file if step_of_line(line) is not None)
        return list(islice((fields for fields in lines if not fields.get("skipped")), steps))


def truncate_to_step(path: Path, start: int) -> str:
    """Remove the lines of steps from `start` on, which are about to be trained again, and an incomplete last line.

    The file is only truncated, never rewritten, so a kill cannot lose the lines that stay.

    Returns:
        A message about damaged lines among those that stay, or an empty string.

    Raises:
        OSError: the file cannot be read or truncated.
    """
    if not path.exists():
        return ""
    end = kept = 0
    before = -1
    doubtful: list[int] = []  # damaged lines if a valid one follows, else the part to remove
    damaged: list[int] = []
    with path.open("r+b") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            step = step_of_line(line)
            if step is None or not before < step < start:
                doubtful.append(number)
            if step is not None and step < start:
                kept, before = end, step
                damaged += doubtful
                doubtful = []
        if kept < end:
            file.truncate(kept)
    if not damaged:
        return ""
    more = f", and {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
    return f"{path}, line {damaged[0]}: damaged{more}; the readable lines are kept and the run continues"


def step_of_line(line: bytes) -> int | None:
    """The step of a log line, or None if the line is incomplete or damaged."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    step = fields.get("step") if isinstance(fields, dict) else None
    return step if type(step) is int and line.endswith(b"\n") else None


def _last_step(path: Path) -> int | None:
    """The step of the last line."""
    last = None
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                last = step_of_line(line)
    return last
