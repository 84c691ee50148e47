"""The command line `griffon-train`."""

import click

from griffon_train.cli.ask import ask_command
from griffon_train.cli.checkpoint import checkpoint
from griffon_train.cli.convert import convert
from griffon_train.cli.evaluate import evaluate_command
from griffon_train.cli.memory import memory_command
from griffon_train.cli.new_model import new_model_command
from griffon_train.cli.plan import lengths_command, plan_command
from griffon_train.cli.read import read_command
from griffon_train.cli.run import run
from griffon_train.cli.seen import seen_command
from griffon_train.cli.tokens import tokens_command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="griffon-pipeline", prog_name="griffon-train")
@click.option("--local_rank", hidden=True, expose_value=False)  # passed by DeepSpeed's launcher
def main() -> None:
    """Train Griffon-style vision-language models on shards from griffon-prep."""


_COMMANDS = (
    new_model_command,
    plan_command,
    lengths_command,
    tokens_command,
    read_command,
    memory_command,
    run,
    checkpoint,
    evaluate_command,
    ask_command,
    seen_command,
    convert,
)
for command in _COMMANDS:
    main.add_command(command)
