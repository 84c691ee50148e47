"""The command lines: errors become one line for the user and an exit code for programs; options that several share."""

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.logs import configure_command
from griffon_shards.support.processes import available_cores

Arguments = ParamSpec("Arguments")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
"""Adds `--json` to a command, as `as_json`."""

workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=available_cores,
    help="Number of worker processes.  [default: one per CPU core]",
)
"""Adds `--workers` to a command."""


def guard(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Report a command's expected errors in one line and exit with 2 for settings, 1 for data and storage."""
    return _guarded(command, ())


def comparing(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """`guard` for a command that exits with 1 to say that its inputs differ: all errors exit with 2, as in diff(1)."""
    return _guarded(command, (), data_code=2)


def resumable(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """`guard` for a command that resumes when it is rerun; its messages say so."""
    return _guarded(command, ("rerun the same command to resume",))


def _guarded(
    command: Callable[Arguments, None], how_to_resume: tuple[str, ...], data_code: int = 1
) -> Callable[Arguments, None]:
    @wraps(command)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        _prepare()
        try:
            command(*args, **kwargs)
        except SettingsError as error:
            _fail(str(error), 2)
        except DataError as error:
            _fail(str(error), data_code)
        except BrokenPipeError:
            # `... | head` is not an error. Discard what is still buffered, or Python complains when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(data_code)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            disk_is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            _fail("; ".join((message, "free some space", *how_to_resume) if disk_is_full else (message,)), data_code)
        except KeyboardInterrupt:
            _fail("; ".join(("interrupted", *how_to_resume)), 130)

    return guarded


def _prepare() -> None:
    """Set up streams, logging, warnings and signals before anything can fail."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: discard the output
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - open until the process ends
    configure_command()
    warnings.filterwarnings("ignore", module="PIL")  # about unused metadata; real damage raises an error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # schedulers stop a job with SIGTERM: treat it like Ctrl-C
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        _fail(f"this locale reads file names as {encoding}, expected utf-8; set PYTHONUTF8=1 and run it again", 2)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(code)
