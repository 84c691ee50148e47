"""Asks the terminal which image protocol it understands, and how large an image it has room for.

Sources: kitty's documentation, "Terminal graphics protocol", section "Querying support"; iterm2.com, "Terminal Feature
Reporting"; xterm's "XTerm Control Sequences", for device attributes (4 is sixel graphics) and XTVERSION.
"""

import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

_KITTY_ID = b"31"
_QUESTIONS = (
    b"\x1b_Gi=" + _KITTY_ID + b",s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"  # could you show this one pixel?
    b"\x1b]1337;Capabilities\x1b\\"
    b"\x1b[>q"  # XTVERSION
    b"\x1b[c"  # device attributes, last: every terminal answers this one, whatever it makes of the others
)
_KITTY = re.compile(rb"\x1b_Gi=" + _KITTY_ID + rb"[^;\x1b]*;OK\x1b\\")
_CAPABILITIES = re.compile(rb"\x1b\]1337;Capabilities=([A-Za-z0-9]*)(?:\x07|\x1b\\)")
_VERSION = re.compile(rb"\x1bP>\|([^\x1b]*)\x1b\\")
_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_SIXEL = b"4"
_FILE = re.compile(r"F(?![a-z])")  # the capability to show files; each begins with a capital letter
_WITH_ITERM2 = ("iTerm", "WezTerm")  # beginnings of the names of terminals
_TIME_LIMIT_S = 2.0
_CLEAR_LINE = b"\r\x1b[K"  # of what a terminal may have written that did not understand a question
_CELL_PX = (8, 16)  # width and height of a character where the terminal does not tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """A terminal that shows images.

    Attributes:
        protocol: `kitty`, `iterm2` or `sixel`.
        size_px: width and height of the largest image that fits into its window.
    """

    protocol: str
    size_px: tuple[int, int]


def find_terminal(environment: Mapping[str, str], time_limit_s: float = _TIME_LIMIT_S) -> Terminal | None:
    """The terminal that this process runs in, or None if it shows no images or there is none.

    Args:
        environment: environment variables.
        time_limit_s: how long to wait for its answer.
    """
    if environment.get("TERM", "dumb") == "dumb":
        return None
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:  # no controlling terminal
        return None
    try:
        if os.tcgetpgrp(descriptor) != os.getpgrp():  # in the background: asking would stop this process
            return None
        with _without_echo(descriptor):
            answer = _ask(descriptor, time_limit_s)
        protocol = protocol_of(answer, environment)
        return None if protocol is None else Terminal(protocol=protocol, size_px=_size_px(descriptor))
    except (OSError, termios.error):  # the terminal has gone, or is not one
        return None
    finally:
        os.close(descriptor)


def protocol_of(answer: bytes, environment: Mapping[str, str]) -> str | None:
    """The best image protocol that a terminal's answer names, or None. Sixel is the last choice: it has few colours."""
    if _KITTY.search(answer):
        return "kitty"
    capabilities, version = _CAPABILITIES.search(answer), _VERSION.search(answer)
    names = (version.group(1).decode("ascii", "replace") if version else "", environment.get("TERM_PROGRAM", ""))
    if (capabilities and _FILE.search(capabilities.group(1).decode())) or any(
        name.startswith(_WITH_ITERM2) for name in names
    ):
        return "iterm2"
    attributes = _ATTRIBUTES.search(answer)
    return "sixel" if attributes and _SIXEL in attributes.group(1).split(b";") else None


@contextmanager
def _without_echo(descriptor: int) -> Iterator[None]:
    """Read what the terminal sends byte by byte and unseen. Its settings are restored in any case."""
    before = termios.tcgetattr(descriptor)
    changed = [*before[:3], before[3] & ~(termios.ECHO | termios.ICANON), *before[4:]]
    try:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)  # and drop what came too late


def _ask(descriptor: int, time_limit_s: float) -> bytes:
    """The terminal's answers up to its device attributes, or what has come by the time limit."""
    os.write(descriptor, _QUESTIONS)
    answer, until = b"", time.monotonic() + time_limit_s
    while not _ATTRIBUTES.search(answer) and (left_s := until - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left_s)[0]:
            answer += os.read(descriptor, 4096)
    os.write(descriptor, _CLEAR_LINE)
    return answer


def _size_px(descriptor: int) -> tuple[int, int]:
    """The window's size less two lines, for the prompt."""
    packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    rows, columns, width_px, height_px = struct.unpack("4H", packed)
    rows, columns = rows or 24, columns or 80
    width_px, height_px = width_px or columns * _CELL_PX[0], height_px or rows * _CELL_PX[1]
    return width_px, max(height_px * (rows - 2) // rows, height_px // rows)
