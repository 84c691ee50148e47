"""Log lines: who writes them, at which level, and beside a progress bar."""

import contextlib
import logging
import multiprocessing
import os
import pty
import re
import sys
import termios
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from tqdm import tqdm

from griffon_shards.support.command_line import guard
from griffon_shards.support.logs import configure, verbosity_option

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"

log = logging.getLogger("griffon_train.some.module")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("griffon_prep", "griffon_shards", "griffon_train")]
    before = [(logger, logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    yield
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


@click.command()
@verbosity_option
@guard
def command() -> None:
    log.debug("a phase")
    log.info("100% of 3")
    log.warning("a reject")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["100% of 3", "warning: a reject"]),
        (["-q"], ["warning: a reject"]),
        (["--quiet"], ["warning: a reject"]),
        (["-v"], ["a phase", "100% of 3", "warning: a reject"]),
    ],
)
def test_levels(options: list[str], expected: list[str]) -> None:
    result = CliRunner().invoke(command, options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert [re.fullmatch(f"{TIME} (.*)", line)[1] for line in result.stderr.splitlines()] == expected  # type: ignore[index]


def test_commands_without_the_options_log_too() -> None:
    @click.command()
    @guard
    def other() -> None:
        log.debug("a phase")
        log.info("a line")

    CliRunner().invoke(command, ["-q"])
    assert re.fullmatch(f"{TIME} a line\n", CliRunner().invoke(other).stderr)


@pytest.mark.parametrize(
    ("rank", "options", "expected"),
    [
        ("0", [], ["100% of 3", "warning: a reject"]),
        ("3", [], ["warning: a reject"]),
        ("3", ["-q"], ["warning: a reject"]),
        ("3", ["-v"], ["a phase", "100% of 3", "warning: a reject"]),
    ],
)
def test_ranks(rank: str, options: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "4")
    lines = CliRunner().invoke(command, options).stderr.splitlines()
    assert [re.fullmatch(rf"{TIME} \[rank {rank}\] (.*)", line)[1] for line in lines] == expected  # type: ignore[index]


def test_worker_processes(capfd: pytest.CaptureFixture[str]) -> None:
    configure()
    worker = multiprocessing.get_context("fork").Process(target=log.info, args=("reads",), name="worker 7")
    worker.start()
    worker.join()
    assert re.fullmatch(rf"{TIME} \[worker 7\] reads\n", capfd.readouterr().err)


def test_a_root_logger_that_somebody_configures(capsys: pytest.CaptureFixture[str]) -> None:
    """A user's hook may: no line is logged twice, and libraries log as they did."""
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        configure()
        log.warning("ours")
        logging.getLogger("a_library").warning("theirs")
    finally:
        root.removeHandler(handler)
    ours, theirs = capsys.readouterr().err.splitlines()
    assert ours.endswith(" warning: ours") and theirs == "theirs"


def test_a_progress_bar_stays_below_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    configure()
    read_end, write_end = pty.openpty()
    termios.tcsetwinsize(write_end, (24, 80))
    with os.fdopen(write_end, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with tqdm(total=2, desc="bar", mininterval=0) as bar:
            bar.update()
            log.info("a line")
            bar.update()
    shown = ""
    with contextlib.suppress(OSError):  # the end of what a terminal was given
        while part := os.read(read_end, 10_000):
            shown += part.decode()
    os.close(read_end)
    (line,) = [line for line in shown.split("\r\n") if "a line" in line]
    assert re.fullmatch(f"{TIME} a line", line.rpartition("\r")[2])
    assert "2/2" in shown.partition("a line")[2], "the bar goes on below"
