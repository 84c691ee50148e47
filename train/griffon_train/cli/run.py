"""`griffon-train run`; its options are derived from the settings table."""

import os
from collections.abc import Callable, Container, Mapping
from typing import Any

import click

from griffon_shards.support.command_line import resumable
from griffon_shards.support.logs import verbosity_option
from griffon_train.config.options import takes_many
from griffon_train.config.reference_flags import BOOLEANS, FOREIGN, translate
from griffon_train.config.resolve import Resolved, resolve
from griffon_train.config.settings import DEFAULTS, OPTIONS, TYPES, VALUE_TYPES, option_name, section, shown
from griffon_train.distributed.signals import listening

_ANSWERS: dict[str, Any] = {"is_flag": False, "flag_value": "true", "metavar": "[true|false]"}
"""Options for which `--freeze-llm`, `--freeze-llm True` and `--freeze-llm=false` are all valid."""

_METAVARS = {"weights": "TAG=W", "skip_steps": "A:B", "lr_from": "STEP=LR", "profile_steps": "A:B"}

_NAMES = {
    other: name for name, option in OPTIONS.items() for other in (name, option.reference_name, option.spelling) if other
}
"""Settings by each of their names, with underscores."""

_FOREIGN_NAMES = {*BOOLEANS, *FOREIGN, "local_rank", "print_config"}


class SettingsCommand(click.Command):
    """A command whose help lists options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section's options below its title."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                title = section(param.name) if param.name in OPTIONS else "Other"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def plain_name(name: str) -> str:
    """The canonical name of an option given with underscores or hyphens, under our name or the reference's.

    click also passes values through here; they are returned unchanged.
    """
    underscored = name.replace("-", "_")
    if underscored in _NAMES:
        return option_name(_NAMES[underscored]).removeprefix("--")
    return underscored.replace("_", "-") if underscored in _FOREIGN_NAMES else name


def settings_options(command: Callable[..., None], shown_settings: Container[str] = OPTIONS) -> Callable[..., None]:
    """Add every option to the command: the settings, and hidden options of the reference's script.

    Args:
        command: the command.
        shown_settings: settings that its help lists; the others are accepted, too.
    """
    options = [_option(name, hidden=name not in shown_settings) for name in OPTIONS]
    for name in BOOLEANS:
        options.append(click.option("--" + plain_name(name), name, type=click.BOOL, hidden=True, **_ANSWERS))
    for name in FOREIGN:
        options.append(click.option("--" + plain_name(name), name, hidden=True, **_ANSWERS))
    # DeepSpeed's launcher passes it; the environment has the same number
    options.append(click.option("--local-rank", type=click.INT, hidden=True, expose_value=False))
    for option in reversed(options):
        command = option(command)
    return command


def _option(name: str, *, hidden: bool) -> Callable[[Any], Any]:
    """A click option for a setting; its value is None or an empty tuple when not given."""
    option = OPTIONS[name]
    value_type = VALUE_TYPES[name]
    text = option.help
    if name in DEFAULTS:
        text += f"  [default: {shown(name, DEFAULTS[name]).strip('()')}]"
    if option.reference_name:
        text += f"  [reference: --{option.reference_name}]"
    given: dict[str, Any] = (
        _ANSWERS if value_type is click.BOOL else {"metavar": _METAVARS[name]} if name in _METAVARS else {}
    )
    given = given | {"type": value_type, "multiple": takes_many(TYPES[name]), "default": None}
    return click.option(option_name(name), name, help=text, hidden=hidden, **given)


def resolved(options: Mapping[str, Any], *, complete: bool) -> Resolved:
    """The settings from the values of `settings_options`; `complete` as for `resolve`.

    Raises:
        SettingsError: a value is invalid, or settings contradict each other.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = translate(
        {name: value for name, value in given.items() if name in OPTIONS},
        {name: value for name, value in given.items() if name in BOOLEANS},
        {name: value for name, value in given.items() if name in FOREIGN},
    )
    return resolve(settings, complete=complete)


@click.command(cls=SettingsCommand, context_settings={"token_normalize_func": plain_name, "max_content_width": 120})
@settings_options
@verbosity_option
@click.option("--print-config", is_flag=True, help="Print every setting and where its value comes from, then exit.")
@resumable
def run(print_config: bool, **options: Any) -> None:  # noqa: ANN401
    """Train a model on shards, or resume the run in --output-dir.

    The recipe of --stage overrides some of the defaults below, and options on the command line override both;
    --print-config shows the result. Option names may have hyphens or underscores. An option with [reference: --NAME]
    also accepts its name in Griffon's released training script.

    To train on 8 GPUs: torchrun --nproc_per_node 8 -m griffon_train run --stage pretrain ...
    """
    found = resolved(options, complete=not print_config)
    if print_config:
        if os.environ.get("RANK", "0") == "0":  # torchrun starts many processes; one prints
            click.echo(found.table())
        return
    with listening() as requests:  # before slow imports, which may drop a KeyboardInterrupt
        from griffon_train.training.loop import train  # torch takes seconds to import

        train(found.settings, requests)
