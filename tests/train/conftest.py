"""Sets to train on, and the command line as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from griffon_prep.cli import main as prep
from griffon_prep.sample_data import write_plain_data
from griffon_shards.types import BOX_STYLES
from griffon_train.cli.main import main

from ..waiting import TIMEOUT_S

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def variants_set(tmp_path_factory: pytest.TempPathFactory, freeze_demo: Callable[..., Path]) -> Path:
    """The sample data with three renderings a sample."""
    return freeze_demo(tmp_path_factory.mktemp("variants") / "out", "--variants", "3", "--samples-per-shard", "50")


@pytest.fixture(scope="session")
def plain_sets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Plain sample data of VG and DET, by how its boxes are written."""
    folder = tmp_path_factory.mktemp("plain")
    manifest = write_plain_data(folder / "data", seed=0, images=12, tasks=["VG", "DET"])
    for boxes in BOX_STYLES:
        given = ["--manifest", manifest, "--data-root", manifest.parent, "--workers", 1, "--boxes", boxes]
        built = CliRunner().invoke(prep, ["build", *map(str, given), "--out", str(folder / boxes)])
        assert built.exit_code == 0, built.output
    return {boxes: folder / boxes for boxes in BOX_STYLES}


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
