"""Log lines of the commands: `2026-03-01 02:11:05 [rank 3] step 10/100 ...` on standard error.

Modules use `logging.getLogger(__name__)`. The commands configure the loggers of our packages only, so that those of
libraries stay as they are.
"""

import logging
import os
import sys
from collections.abc import Mapping

import click
from tqdm import tqdm

_LEVEL = "griffon_shards.support.logs.level"  # in the meta data of click's context
_PACKAGES = ("griffon_prep", "griffon_shards", "griffon_train")


def configure(level: int = logging.INFO) -> None:
    """Log from `level` on to standard error. Of the processes of a run, rank 0 alone logs what is below WARNING.

    At DEBUG all ranks log everything.
    """
    if level > logging.DEBUG and os.environ.get("RANK", "0") != "0":
        level = max(level, logging.WARNING)
    handler = _StandardError()
    handler.setFormatter(Formatter(os.environ))
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = [handler]
        logger.propagate = False  # a user's hook may configure the root logger


def configure_command() -> None:
    """Log from the level that `-v` and `-q` of the current command choose, from INFO on by default."""
    context = click.get_current_context(silent=True)
    configure(logging.INFO if context is None else context.meta.get(_LEVEL, logging.INFO))


def _choose(context: click.Context, _option: click.Parameter, verbose: bool | None) -> None:
    if verbose is not None:
        context.meta[_LEVEL] = logging.DEBUG if verbose else logging.WARNING


verbosity_option = click.option(
    "-v/-q",
    "--verbose/--quiet",
    default=None,
    expose_value=False,
    callback=_choose,
    help="-v: also log phases and timings; -q: log only warnings and errors.",
)
"""Adds `-v` and `-q` to a command."""


class Formatter(logging.Formatter):
    """Formats a record: time, the rank if there are several, the worker process if it is one, and the message."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Format the lines of a process with the `RANK` and `WORLD_SIZE` that its launcher has set, if any."""
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S")
        several = environment.get("WORLD_SIZE", "1") != "1"
        self._rank = f"rank {environment.get('RANK', '0')}" if several else ""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        worker = "" if record.processName in (None, "MainProcess") else str(record.processName)
        process = ", ".join(filter(None, (self._rank, worker)))
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        return f"{record.asctime} {f'[{process}] ' if process else ''}{warning}{record.message}"


class _StandardError(logging.Handler):
    """Writes to `sys.stderr` as it is at the time, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if sys.stderr.isatty():  # bars are shown on terminals only
            tqdm.write(line, file=sys.stderr)
        else:
            click.echo(line, err=True)
