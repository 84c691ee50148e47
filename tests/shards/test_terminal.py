"""`show --draw -` in terminals that show images: asked as they are asked, and each protocol's bytes decoded again.

The terminal is a pseudo-terminal, whose other end answers as terminals of that kind do.
"""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fcntl import ioctl
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from griffon_shards import Sample, open_set
from griffon_shards.cli import main
from griffon_shards.draw import draw_sample
from griffon_shards.terminal_image import encode_for_terminal
from griffon_shards.terminal_query import protocol_of

from ..waiting import TIMEOUT_S

KITTY_QUESTION, CAPABILITIES, VERSION, ATTRIBUTES = (
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
    b"\x1b]1337;Capabilities\x1b\\",
    b"\x1b[>q",
    b"\x1b[c",
)
ANSWERS: Mapping[str, Mapping[bytes, bytes]] = {
    "kitty": {
        KITTY_QUESTION: b"\x1b_Gi=31;OK\x1b\\",
        VERSION: b"\x1bP>|kitty(0.40.0)\x1b\\",
        ATTRIBUTES: b"\x1b[?62;52;c",
    },
    "iTerm2": {
        CAPABILITIES: b"\x1b]1337;Capabilities=T3CwLrMSc7UUw9Ts3BFGsSyHNoSxF\x07",
        VERSION: b"\x1bP>|iTerm2 3.5.0\x1b\\",
        ATTRIBUTES: b"\x1b[?65;1;9;c",
    },
    "WezTerm": {VERSION: b"\x1bP>|WezTerm 20240203\x1b\\", ATTRIBUTES: b"\x1b[?65;4;6;18;22c"},
    "foot": {VERSION: b"\x1bP>|foot(1.20.2)\x1b\\", ATTRIBUTES: b"\x1b[?62;4;22;28c"},
    "xterm": {VERSION: b"\x1bP>|XTerm(390)\x1b\\", ATTRIBUTES: b"\x1b[?64;1;2;6;9;15;16;17;18;21;22;28c"},
    "VTE": {CAPABILITIES: b"\x1b]1337;Capabilities=T3Fw\x07", ATTRIBUTES: b"\x1b[?61;1;21;22c"},
    "silent": {},
}
PROTOCOLS = {"kitty": "kitty", "iTerm2": "iterm2", "WezTerm": "iterm2", "foot": "sixel"}


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a command wrote to the terminal, its exit code, and whether the terminal's settings are as they were."""

    output: bytes
    code: int
    restored: bool


def in_terminal(answers: Mapping[bytes, bytes], *arguments: object, term: str = "xterm-256color") -> Session:
    """Run `griffon-shards ARGUMENTS` in a terminal of 100 x 40 cells of 10 x 20 pixels that gives these answers."""
    waiting, ready = os.pipe()
    process, master = pty.fork()
    if process == 0:
        code = 70
        try:
            os.read(waiting, 1)  # until the terminal has its size, and its settings have been noted
            os.environ.update(TERM=term)
            os.environ.pop("TERM_PROGRAM", None)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            main([str(argument) for argument in arguments], prog_name="griffon-shards")
        except SystemExit as stop:
            sys.stdout.flush()
            code = int(stop.code or 0)
        finally:
            os._exit(code)
    ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 100, 1000, 800))
    before, after = termios.tcgetattr(master), None
    os.write(ready, b"1")
    output, until, pending = b"", time.monotonic() + TIMEOUT_S, dict(answers)
    while time.monotonic() < until and select.select([master], [], [], TIMEOUT_S)[0]:
        try:
            output += os.read(master, 1 << 16)
        except OSError:  # the other end is closed
            break
        for question in [question for question in (*answers, ATTRIBUTES) if question in output]:
            output = output.replace(question, b"")
            if question in pending:
                os.write(master, pending.pop(question))
        after = termios.tcgetattr(master)
    _, status = os.waitpid(process, 0)
    for descriptor in (master, waiting, ready):
        os.close(descriptor)
    for sent in (KITTY_QUESTION, CAPABILITIES, VERSION, ATTRIBUTES, b"\r\x1b[K"):
        output = output.replace(sent, b"")
    return Session(output=output, code=os.waitstatus_to_exitcode(status), restored=before == after)


def shown_by(protocol: str, output: bytes) -> Image.Image:
    """The image that a terminal would show, decoded as the protocol's documentation says."""
    return {"kitty": _from_kitty, "iterm2": _from_iterm2, "sixel": _from_sixel}[protocol](output)


def _from_kitty(output: bytes) -> Image.Image:
    sequences = re.findall(rb"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", output)
    controls = [dict(item.split(b"=") for item in control.split(b",")) for control, _ in sequences]
    assert controls[0] | {b"m": b"?"} == {b"a": b"T", b"f": b"100", b"q": b"2", b"m": b"?"}
    assert [control[b"m"] for control in controls] == [b"1"] * (len(controls) - 1) + [b"0"]
    assert all(control.keys() == {b"m"} for control in controls[1:])
    assert all(len(data) <= 4096 and len(data) % 4 == 0 for _, data in sequences)
    return Image.open(BytesIO(b64decode(b"".join(data for _, data in sequences))))


def _from_iterm2(output: bytes) -> Image.Image:
    (found,) = re.findall(rb"\x1b\]1337;File=inline=1;size=(\d+):([A-Za-z0-9+/=]*)\x07", output)
    data = b64decode(found[1])
    assert len(data) == int(found[0])
    return Image.open(BytesIO(data))


def _from_sixel(output: bytes) -> Image.Image:
    (found,) = re.findall(rb"\x1bP0;1q\"1;1;(\d+);(\d+)([^\x1b]*)\x1b\\", output)
    width_px, height_px = int(found[0]), int(found[1])
    pixels = np.zeros((height_px + 5, width_px, 3), np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    colour = x = y = 0
    painted = np.zeros(pixels.shape[:2], bool)
    for item in re.findall(rb"#\d+(?:;\d+){4}|#\d+|!\d+.|[$\-?-~]", found[2]):
        if item[:1] == b"#":
            colour, *rest = map(int, item[1:].split(b";"))
            if rest:
                assert rest[0] == 2
                palette[colour] = tuple(round(value * 255 / 100) for value in rest[1:])
        elif item == b"$":
            x = 0
        elif item == b"-":
            x, y = 0, y + 6
        else:
            count = int(item[1:-1]) if item[:1] == b"!" else 1
            for row in range(6):
                if (item[-1] - 63) >> row & 1:
                    pixels[y + row, x : x + count] = palette[colour]
                    painted[y + row, x : x + count] = True
            x += count
            assert x <= width_px
    assert painted[:height_px].all() and not painted[height_px:].any()
    return Image.fromarray(pixels[:height_px])


@pytest.fixture(scope="module")
def root(
    tmp_path_factory: pytest.TempPathFactory, write_set: Callable[..., Path], make_sample: Callable[..., Sample]
) -> Path:
    """A set of one sample, whose image is larger than the terminal's window."""
    sample = make_sample(
        "DET-000000000", "cat-[0.100,0.200,0.300,0.400]&猫-[0.5,0.5,0.6,0.6]"[:29], size_px=(1500, 900)
    )
    return write_set(tmp_path_factory.mktemp("terminal") / "set", [sample])


@pytest.mark.parametrize("terminal", PROTOCOLS)
def test_the_image_is_shown_in_the_terminal(root: Path, terminal: str) -> None:
    session = in_terminal(ANSWERS[terminal], "show", root, "DET-000000000", "--draw", "-")
    assert (session.code, session.restored) == (0, True)
    assert b"[gpt] cat-" in session.output
    shown = shown_by(PROTOCOLS[terminal], session.output)
    expected = draw_sample(open_set(root)[0], "text")
    expected.thumbnail((1000, 760), Image.Resampling.BICUBIC)
    assert shown.size == expected.size == (1000, 600)
    difference = np.abs(np.asarray(shown.convert("RGB"), np.int64) - np.asarray(expected, np.int64))
    assert difference.max() <= (24 if terminal == "foot" else 0)  # sixel has 256 colours, in percent


@pytest.mark.parametrize("terminal", ["xterm", "VTE"])
def test_a_terminal_without_images_is_refused(root: Path, terminal: str) -> None:
    session = in_terminal(ANSWERS[terminal], "show", root, "DET-000000000", "--draw", "-")
    assert (session.code, session.restored) == (2, True)
    lines = session.output.decode().splitlines()
    assert lines[-1].startswith("error: --draw -: this terminal does not show images")
    assert lines[-1].endswith("--draw FILE.png")
    assert "[gpt]" not in session.output.decode()


def test_a_terminal_that_does_not_answer(root: Path) -> None:
    session = in_terminal(ANSWERS["silent"], "show", root, "DET-000000000", "--draw", "-")
    assert (session.code, session.restored) == (2, True)
    assert b"error: --draw -: this terminal does not show images" in session.output


def test_an_interrupt_while_the_terminal_is_asked(root: Path) -> None:
    session = in_terminal({ATTRIBUTES: b"\x03"}, "show", root, "DET-000000000", "--draw", "-")
    assert (session.code, session.restored) == (130, True)
    assert session.output.endswith(b"error: interrupted\r\n")


def test_a_dumb_terminal_is_not_asked(root: Path) -> None:
    session = in_terminal(ANSWERS["kitty"], "show", root, "DET-000000000", "--draw", "-", term="dumb")
    assert session.code == 2
    assert session.output.startswith(b"error: --draw -")


def test_output_that_is_no_terminal_is_refused(
    root: Path, shards_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    result = shards_cli("show", root, "DET-000000000", "--draw", "-")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: --draw -: standard output is not a terminal; give a file instead: --draw FILE.png\n"
    )
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    ("answer", "program", "protocol"),
    [
        (b"\x1b_Gi=31;EINVAL:no\x1b\\\x1b[?62;4c", "", "sixel"),
        (b"typed \x1b[A\x1b_Gi=31;OK\x1b\\\x1b[?62c", "", "kitty"),
        (b"\x1b[?62;14;24c", "", None),
        (b"\x1b[?62c", "iTerm.app", "iterm2"),
        (b"\x1b[?62c", "Apple_Terminal", None),
        (b"\x1b]1337;Capabilities=TFiSx\x07\x1b[?62c", "", None),
        (b"\xff\xfe\x1bP>|\xff\x1b\\", "", None),
        (b"", "", None),
    ],
)
def test_answers_are_read_with_care(answer: bytes, program: str, protocol: str | None) -> None:
    assert protocol_of(answer, {"TERM_PROGRAM": program}) == protocol


@pytest.mark.parametrize("protocol", ["kitty", "iterm2", "sixel"])
@pytest.mark.parametrize("size_px", [(1, 1), (7, 13), (64, 6)])
def test_small_images_come_through(protocol: str, size_px: tuple[int, int]) -> None:
    draws = np.random.default_rng(0)
    levels = draws.integers(0, 6, (size_px[1], size_px[0], 3)) * 51  # few colours, each a whole number of percent
    image = Image.fromarray(levels.astype(np.uint8))
    encoded = encode_for_terminal(image, protocol, (100, 100))
    difference = np.abs(np.asarray(shown_by(protocol, encoded).convert("RGB"), np.int64) - levels)
    assert difference.max() <= (52 if protocol == "sixel" else 0)
    assert encoded.endswith(b"\n")
