"""What a run tells: in files, to TensorBoard, to a hook of one's own, and in a line to whoever watches.

`metrics.jsonl` is the same, bit for bit, for two equal runs; `timing.jsonl` has what depends on the clock.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import click
import orjson

METRICS, TIMING, VALIDATION = "metrics.jsonl", "timing.jsonl", "validation.jsonl"
"""Files of a run; a line for each step, by the plan's number of it, from 0."""

_CHARTS = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait")

Hook = Callable[[int, Mapping[str, Any]], object]
"""Called with a step's number and its figures."""


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

    def __init__(self, run: Path, *, start: int, steps: int, log_every: int, hook: Hook | None) -> None:
        """Open the files, cut back to the step that the run goes on with.

        Args:
            run: its folder.
            start: first step to come.
            steps: of the whole run.
            log_every: steps between lines.
            hook: called with every step's figures.
        """
        from torch.utils.tensorboard import SummaryWriter

        for name in (METRICS, TIMING, VALIDATION):
            cut_back(run / name, start)
        self._files: dict[str, TextIO] = {
            name: (run / name).open("a", encoding="utf-8") for name in (METRICS, TIMING, VALIDATION)
        }
        self._board: Any = SummaryWriter(run / "tensorboard", purge_step=start)
        self._steps, self._log_every, self._hook = steps, log_every, hook
        self._began, self._start = time.monotonic(), start
        self._samples = self._overlong = self._without_targets = 0  # since the last line

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._board.close()

    def step(self, figures: StepFigures) -> None:
        """Tell a step."""
        self._write(METRICS, figures.metrics)
        self._write(TIMING, figures.timing)
        told = {**figures.metrics, **figures.timing}
        for name in _CHARTS:
            self._board.add_scalar(f"train/{name}", told[name], figures.step)
        for group, value in figures.metrics["loss_by_task"].items():
            self._board.add_scalar(f"train/loss/{group}", value, figures.step)
        if self._hook is not None:
            self._hook(figures.step, told)
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
        for group, value in losses.items():
            self._board.add_scalar(f"validation/{group}", value, step)
        if self._hook is not None:
            self._hook(step, told)
        self.say(f"step {step + 1}/{self._steps}  validation  " + "  ".join(f"{k} {v:.4f}" for k, v in losses.items()))

    def say(self, line: str) -> None:
        """Say a line to whoever watches."""
        click.echo(line, err=True)

    def _write(self, name: str, fields: Mapping[str, Any]) -> None:
        self._files[name].write(orjson.dumps(fields).decode() + "\n")
        self._files[name].flush()

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
        trained = (told for told in map(orjson.loads, file) if not told.get("skipped"))
        return list(islice(trained, steps))


def cut_back(path: Path, start: int) -> None:
    """Leave only whole lines of steps before `start`: what came after is about to come again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or orjson.loads(line)["step"] >= start:
            break
        kept.append(line)
    path.write_bytes(b"".join(kept))
