"""The command `griffon-train run`, made from the table of settings."""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import click

from griffon_shards.support.command_line import resumable
from griffon_train.config.reference_flags import FOREIGN, SAID_OTHERWISE, translate
from griffon_train.config.resolve import resolve
from griffon_train.config.settings import OPTIONS, Settings, option_name, shown
from griffon_train.training.signals import listening

_SECTIONS = {
    "stage": "The run",
    "model": "The model",
    "tune_mm_mlp_adapter": "What trains; without any of these, everything",
    "max_length": "Batches",
    "lr": "The optimizer",
    "zero": "Memory and speed",
    "save_steps": "Checkpoints, validation, logs",
}
"""Of the help, by the setting that each begins with."""


class _Path(click.Path):
    """A path; an empty one, as a shell's unset variable leaves it, would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The path, if there is one."""
        if value == "":
            self.fail("expected a path, got an empty text", param, ctx)
        return super().convert(value, param, ctx)


_KINDS: dict[type, click.ParamType[Any]] = {
    bool: click.BOOL,
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    Path: _Path(path_type=Path),
}
_ANSWERS: dict[str, Any] = {"is_flag": False, "flag_value": "true", "metavar": "[true|false]"}
"""What makes `--freeze-llm`, `--freeze-llm True` and `--freeze-llm=false` one option."""

_METAVARS = {"weights": "TAG=W", "skip_steps": "A:B", "lr_from": "STEP=LR"}

_NAMES = {other: name for name, option in OPTIONS.items() for other in (name, option.called, option.shown) if other}
"""Settings by all that they are called, with underscores."""

_FOREIGN_NAMES = {*SAID_OTHERWISE, *FOREIGN, "local_rank", "print_config"}


class _Run(click.Command):
    """A command whose help has sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section below its title."""
        sections: dict[str, list[tuple[str, str]]] = {}
        title = "Other"
        for option in self.get_params(ctx):
            title = _SECTIONS.get(option.name or "", title if option.name in OPTIONS else "Other")
            record = option.get_help_record(ctx)
            if record is not None:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _plain(name: str) -> str:
    """The one name of an option, of all that it may be called: with underscores or hyphens, ours or the reference's.

    Values are given to it, too, and stay what they are.
    """
    underscored = name.replace("-", "_")
    if underscored in _NAMES:
        return option_name(_NAMES[underscored]).removeprefix("--")
    return underscored.replace("_", "-") if underscored in _FOREIGN_NAMES else name


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """All that the command takes: settings, and what the reference has instead."""
    hints = get_type_hints(Settings)
    defaults = {each.name: each.default for each in fields(Settings) if each.default is not MISSING}
    options = [_option(name, hints[name], defaults) for name in OPTIONS]
    for name in SAID_OTHERWISE:
        options.append(click.option("--" + _plain(name), name, type=click.BOOL, hidden=True, **_ANSWERS))
    for name in FOREIGN:
        options.append(click.option("--" + _plain(name), name, hidden=True, **_ANSWERS))
    # DeepSpeed's launcher gives every process its number, which the environment says, too
    options.append(click.option("--local-rank", type=click.INT, hidden=True, expose_value=False))
    for option in reversed(options):
        command = option(command)
    return command


def _option(name: str, hint: Any, defaults: Mapping[str, Any]) -> Callable[[Any], Any]:  # noqa: ANN401 - a type
    """A setting as an option; None, or an empty tuple, where it is not given."""
    option = OPTIONS[name]
    multiple = get_origin(hint) is tuple
    kind = next(each for each in (get_args(hint) or (hint,)) if each is not type(None))
    text = option.help
    if name in defaults:
        text += f"  [default: {shown(name, defaults[name]).strip('()')}]"
    if option.called:
        text += f"  [reference: --{option.called}]"
    given: dict[str, Any] = _ANSWERS if kind is bool else {"metavar": _METAVARS[name]} if name in _METAVARS else {}
    given = given | {"type": option.kind or _KINDS[kind], "multiple": multiple, "default": None}
    return click.option(option_name(name), name, help=text, **given)


@click.command(cls=_Run, context_settings={"token_normalize_func": _plain, "max_content_width": 120})
@_options
@click.option("--print-config", is_flag=True, help="Show every setting and where it is from, and do nothing.")
@resumable
def run(print_config: bool, **options: Any) -> None:  # noqa: ANN401
    """Train a model on frozen sets, or go on where the run in --output-dir stopped.

    What is not given is as the stage's recipe says, then as the defaults below do; --print-config shows it all. Names
    may be written with hyphens or underscores, and the reference's names are understood.

    On several devices: torchrun --nproc_per_node 8 -m griffon_train run --stage pretrain ...
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = translate(
        {name: value for name, value in given.items() if name in OPTIONS},
        {name: value for name, value in given.items() if name in SAID_OTHERWISE},
        {name: value for name, value in given.items() if name in FOREIGN},
    )
    resolved = resolve(settings, complete=not print_config)
    if print_config:
        if os.environ.get("RANK", "0") == "0":  # of all the processes that torchrun starts, one is to speak
            click.echo(resolved.table())
        return
    with listening() as requests:  # before what takes long, and may drop a KeyboardInterrupt
        from griffon_train.training.loop import train  # needs torch, which takes seconds to import

        train(resolved.settings, requests)
