"""How the command lines fail: in one line for a user, with an exit code for a program."""

import errno
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import click

from griffon_shards.errors import DataError, SettingsError

Given = ParamSpec("Given")


def guard(command: Callable[Given, None]) -> Callable[Given, None]:
    """Turn what can go wrong for a user into a message and an exit code: 2 for settings, 1 for data and storage."""

    @wraps(command)
    def guarded(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            if sys.getfilesystemencoding() != "utf-8":
                found = sys.getfilesystemencoding()
                raise SettingsError(f"file names are read as {found} in this locale; set PYTHONUTF8=1 and run it again")
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
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                what += "; make room, the same command goes on where it stopped"
            _fail(what, 1)
        except KeyboardInterrupt:
            _fail("interrupted; the same command goes on where it stopped", 130)

    return guarded


def _fail(message: str, code: int) -> None:
    for line in message.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(code)
