"""The options of commands that ask a model: which checkpoint of it, where, and in which data type."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--from",
        "checkpoint",
        metavar="CHECKPOINT",
        help="Checkpoint to use if MODEL is a run: a step, a name such as step-00000100, last or best.  [default: the "
        "run's result, or its last checkpoint if it has none]",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Device to run on; auto is CUDA if available.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "bfloat16", "float32"]),
        default="auto",
        show_default=True,
        help="Data type of the weights; auto is bfloat16 on CUDA and float32 on CPU.",
    ),
)


def model_options(command: Command) -> Command:
    """Add `--from`, `--device` and `--dtype` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
