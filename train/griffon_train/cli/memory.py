"""`griffon-train memory`: how much memory a run will take, and what to change if it does not fit."""

import re
from functools import partial
from typing import Any

import click

from griffon_shards.support.command_line import guard
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.logs import verbosity_option
from griffon_train.cli.run import SettingsCommand, plain_name, resolved, settings_options
from griffon_train.config.settings import OPTIONS, section

_SECTIONS = ("Run", "Data", "Optimizer", "Checkpoints, validation and logs")
_FROM_SECTIONS = {"stage", "from_run", "max_length", "global_batch", "micro_batch", "workers", "optimizer"}
_WITHOUT_EFFECT = {"tokenizer", "pretrain_mm_mlp_adapter", "chat", "deterministic"}
_MATTER = [
    name
    for name in OPTIONS
    if name in _FROM_SECTIONS or (section(name) not in _SECTIONS and name not in _WITHOUT_EFFECT)
]
"""Settings on which memory depends."""

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGT", start=1)}


class _Bytes(click.ParamType[int]):
    """A number of bytes, such as 80GB or 79.6GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        """Convert to a number of bytes."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?I?)B?", str(value).upper())
        if match is None or match[2] not in _UNITS or not float(match[1]):
            self.fail(f"{value!r}: expected a size such as 80GB or 79.6GiB", param, ctx)
        return int(float(match[1]) * _UNITS[match[2]])


@click.command(
    "memory", cls=SettingsCommand, context_settings={"token_normalize_func": plain_name, "max_content_width": 120}
)
@partial(settings_options, shown_settings=_MATTER)
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Number of GPUs, one for each rank.")
@click.option(
    "--gpus-per-machine", type=click.IntRange(1), help="Number of GPUs in each machine.  [default: all, but at most 8]"
)
@click.option("--gpu-memory", type=_Bytes(), help="Memory of a GPU, such as 80GB.  [default: that of GPU 0 here]")
@click.option(
    "--tokens",
    type=click.IntRange(1),
    help="Length of the longest sample in tokens, including image tokens.  [default: --max-length]",
)
@click.option(
    "--learned",
    type=click.IntRange(0),
    help="Number of tokens of the longest sample that contribute to the loss.  [default: all but those of an image]",
)
@verbosity_option
@guard
def memory_command(
    gpus: int,
    gpus_per_machine: int | None,
    gpu_memory: int | None,
    tokens: int | None,
    learned: int | None,
    **options: Any,  # noqa: ANN401
) -> None:
    """Estimate the memory that a run needs on each GPU and machine, without loading anything.

    Takes the options of `griffon-train run` and ignores those that do not affect memory. The figures are for
    micro-batches of the longest samples. If the run does not fit, the last lines list options to change.
    """
    settings = resolved(options, complete=False).settings
    if gpus_per_machine is not None and gpus_per_machine > gpus:
        raise SettingsError(f"--gpus-per-machine {gpus_per_machine} is more than --gpus {gpus}")
    from griffon_train.training.memory_estimate import Ranks  # torch takes seconds to import
    from griffon_train.training.memory_report import MemoryReport

    device = "cpu" if settings.memory.device == "cpu" else "cuda"
    ranks = Ranks(count=gpus, per_machine=gpus_per_machine or min(gpus, 8), device=device)
    report = MemoryReport(settings, ranks, tokens=tokens, learned=learned)
    click.echo("\n\n".join(report.parts(gpu_memory)))
