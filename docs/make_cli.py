"""Write docs/cli.md from the `--help` of every command: `python docs/make_cli.py`. A test compares the two."""

from collections.abc import Iterator
from pathlib import Path

import click

from griffon_prep.cli import main as prep
from griffon_shards.cli import main as shards
from griffon_train.cli.main import main as train

PAGE = Path(__file__).parent / "cli.md"
PROGRAMS = {"griffon-prep": prep, "griffon-shards": shards, "griffon-train": train}
WIDTH = 100

_HEAD = """# Command reference

`python docs/make_cli.py` makes this page from the `--help` of every command. Do not edit it by hand.

Progress goes to standard error, results to standard output. Exit codes: 0 done; 1 the data are at fault; 2 the command,
its manifest or its settings are. `griffon-shards diff` alone exits with 1 for a difference, and with 2 for any error.
"""


def page() -> str:
    """The complete page, with a section for each command in the order in which `--help` lists them."""
    sections = [_HEAD]
    for name, program in PROGRAMS.items():
        for title, text in _helps(name, program, None):
            level = "##" if title == name else "###"
            sections.append(f"{level} {title}\n\n```text\n{text}\n```\n")
    return "\n".join(sections)


def _helps(name: str, command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    """The help of a command and of everything below it, without the hidden ones."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    with click.Context(command, info_name=name, parent=parent, **settings) as context:
        yield context.command_path, command.get_help(context).rstrip()
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                if found is not None and not found.hidden:
                    yield from _helps(below, found, context)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
