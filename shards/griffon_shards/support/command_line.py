"""How the command lines fail: in one line for a user, with an exit code for a program."""

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

Given = ParamSpec("Given")


def guard(command: Callable[Given, None]) -> Callable[Given, None]:
    """Turn what can go wrong for a user into a message and an exit code: 2 for settings, 1 for data and storage."""
    return _guarded(command, ())


def resumable(command: Callable[Given, None]) -> Callable[Given, None]:
    """`guard` for a command that goes on where it stopped when it is run again, and says so."""
    return _guarded(command, ("the same command goes on where it stopped",))


def _guarded(command: Callable[Given, None], goes_on: tuple[str, ...]) -> Callable[Given, None]:
    @wraps(command)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> None:
        _prepare()
        try:
            command(*args, **kwargs)
        except SettingsError as error:
            _fail(str(error), 2)
        except DataError as error:
            _fail(str(error), 1)
        except BrokenPipeError:
            # `... | head` is no fault; what is left to write goes nowhere, or Python would complain at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            _fail("; ".join((what, "make room", *goes_on) if full else (what,)), 1)
        except KeyboardInterrupt:
            _fail("; ".join(("interrupted", *goes_on)), 130)

    return guarded


def _prepare() -> None:
    """See to what the surroundings lack, before anything can go wrong."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; what is said goes nowhere
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for as long as the process lives
    warnings.filterwarnings("ignore", module="PIL")  # of metadata that nobody asked for; faults are errors
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's word to stop is Ctrl-C to us
    found = sys.getfilesystemencoding()
    if found != "utf-8":
        _fail(f"file names are read as {found} in this locale; set PYTHONUTF8=1 and run it again", 2)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(code)
