"""What a run tells: in files, to TensorBoard, to a hook of one's own, and in a line to whoever watches.

`metrics.jsonl` is the same, bit for bit, for two equal runs; `timing.jsonl` has what depends on the clock.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson

from griffon_train.training.log_files import Appended
from griffon_train.training.log_hook import Hook
from griffon_train.training.tensorboard_file import Board

METRICS, TIMING, VALIDATION = "metrics.jsonl", "timing.jsonl", "validation.jsonl"
"""Files of a run; a line for each step, by the plan's number of it, from 0."""

_CHARTS = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """A step, as told.

    Attributes:
        step: its number in the plan.
        metrics: what does not depend on the clock.
        samples: of the global batch.
        tokens: of all its samples, pictures counted and padding not.
        seconds: that it took.
        wait_s: of these, how long the first rank waited for data.
    """

    step: int
    metrics: Mapping[str, Any]
    samples: int
    tokens: int
    seconds: float
    wait_s: float

    @property
    def timing(self) -> dict[str, Any]:
        """What depends on the clock."""
        return {
            "step": self.step,
            "seconds": round(self.seconds, 6),
            "samples_per_s": round(self.samples / self.seconds, 3),
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "data_wait": round(self.wait_s / self.seconds, 4),
        }


class Reporter:
    """Writes the files of a run and speaks for it; on the first rank only."""

    def __init__(self, run: Path, *, start: int, steps: int, log_every: int, hook: str | None) -> None:
        """Open the files, cut back to the step that the run goes on with.

        Args:
            run: its folder.
            start: first step to come.
            steps: of the whole run.
            log_every: steps between lines.
            hook: called with every step's figures; as module:function.

        Raises:
            SettingsError: there is no such hook.
            OSError: a file cannot be written, with its name; so do all that write into them.
        """
        for name in (METRICS, TIMING, VALIDATION):
            damage = truncate_to_step(run / name, start)
            if damage:
                self.say(damage)
        self._validated = _last_step(run / VALIDATION)
        self._files = {name: Appended(run / name) for name in (METRICS, TIMING, VALIDATION)}
        self._board: Board | None = None
        self._hook = None if hook is None else Hook(hook, self.say)
        self._steps, self._log_every = steps, log_every
        self._began, self._start = time.monotonic(), start
        self._samples = self._overlong = self._without_targets = 0  # since the last line
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
        """Wait until what was told is on disk: a checkpoint that survives a power cut is to find it there."""
        for file in self._files.values():
            file.sync()

    def validated(self, step: int) -> bool:
        """Whether the loss on validation sets after a step is told already."""
        return self._validated == step

    def step(self, figures: StepFigures) -> None:
        """Tell a step."""
        self._write(METRICS, figures.metrics)
        self._write(TIMING, figures.timing)
        told = {**figures.metrics, **figures.timing}
        charts = {f"train/{name}": told[name] for name in _CHARTS}
        charts |= {f"train/loss/{group}": value for group, value in figures.metrics["loss_by_task"].items()}
        self._show(charts, figures.step)
        if self._hook is not None:
            self._hook.give(figures.step, told)
        self._samples += figures.samples
        self._overlong += figures.metrics["overlong"]
        self._without_targets += figures.metrics["without_targets"]
        done = figures.step + 1
        if done % self._log_every == 0 or done == self._steps or done == self._start + 1:
            self.say(self._line(told, done))

    def skipped(self, told: Mapping[str, Any]) -> None:
        """Tell that a step was left out."""
        self._write(METRICS, told)
        self.say(f"step {told['step'] + 1}/{self._steps}  left out (--skip-steps)")

    def validation(self, step: int, losses: Mapping[str, float]) -> None:
        """Tell the loss on validation sets, by task group, after a step."""
        told = {"step": step, "validation_loss": losses}
        self._write(VALIDATION, told)
        self._validated = step
        self._show({f"validation/{group}": value for group, value in losses.items()}, step)
        if self._hook is not None:
            self._hook.give(step, told)
        self.say(f"step {step + 1}/{self._steps}  validation  " + "  ".join(f"{k} {v:.4f}" for k, v in losses.items()))

    def say(self, line: str) -> None:
        """Say a line to whoever watches."""
        click.echo(line, err=True)

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
        self.say(
            f"{error.filename}: {error.strerror}; TensorBoard shows nothing from step {step} on until the run is "
            f"started again, and the run goes on: {METRICS} has all of it"
        )

    def _line(self, told: Mapping[str, Any], done: int) -> str:
        rate = (time.monotonic() - self._began) / (done - self._start)
        minutes, seconds = divmod(round(rate * (self._steps - done)), 60)
        counts = {"cut": self._overlong, "without targets": self._without_targets}
        shares = "".join(f"{name} {count / self._samples:.0%}  " for name, count in counts.items() if count)
        self._samples = self._overlong = self._without_targets = 0
        return (
            f"step {done}/{self._steps}  loss {told['loss']:.4f}  lr {told['lr']:.3g}  norm {told['grad_norm']:.3g}  "
            f"{told['samples_per_s']:.1f} samples/s  {told['tokens_per_s']:,.0f} tokens/s  "
            f"data wait {told['data_wait']:.0%}  {shares}{minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        )


def first_told(run: Path, steps: int) -> list[Mapping[str, Any]]:
    """What `metrics.jsonl` says of the first steps of a run, those that were left out not counted."""
    with (run / METRICS).open("rb") as file:
        trained = (orjson.loads(line) for line in file if _step_of(line) is not None)
        return list(islice((told for told in trained if not told.get("skipped")), steps))


def truncate_to_step(path: Path, start: int) -> str:
    """Leave only whole lines of steps before `start`: what came after is about to come again.

    The file is cut at its end and nothing else of it is touched, so no kill can lose what stays. A last line that is
    cut short is what a kill leaves.

    Returns:
        What is damaged in the lines that stay, or nothing.

    Raises:
        OSError: the file cannot be read or cut.
    """
    if not path.exists():
        return ""
    end = kept = 0
    before = -1
    doubtful: list[int] = []  # lines that are damaged, if one that stays comes after them
    damaged: list[int] = []
    with path.open("r+b") as file:
        for number, line in enumerate(file, start=1):
            end += len(line)
            step = _step_of(line)
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
    more = f", like {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
    return f"{path}, line {damaged[0]}: damaged{more}; what can be read stands, and the run goes on"


def _step_of(line: bytes) -> int | None:
    """The step that a line tells of, or None if it is none of ours, or cut short."""
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    step = told.get("step") if isinstance(told, dict) else None
    return step if type(step) is int and line.endswith(b"\n") else None


def _last_step(path: Path) -> int | None:
    """The step of the last line."""
    last = None
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                last = _step_of(line)
    return last
