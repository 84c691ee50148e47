"""Sets to train on, and the command line as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffon_train.cli.main import main

from ..waiting import TIMEOUT_S

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def variants_set(tmp_path_factory: pytest.TempPathFactory, freeze_demo: Callable[..., Path]) -> Path:
    """The sample data with three renderings a sample."""
    return freeze_demo(tmp_path_factory.mktemp("variants") / "out", "--variants", "3", "--samples-per-shard", "50")


@pytest.fixture(scope="session")
def train_cli() -> Run:
    """`griffon-train ARGUMENTS`, its output captured; in this process, for the sake of time."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        result = CliRunner().invoke(main, given, prog_name="griffon-train", catch_exceptions=False)
        return subprocess.CompletedProcess(given, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def train() -> Run:
    """`griffon-train ARGUMENTS` in a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "griffon_train", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=TIMEOUT_S)

    return run
