"""Whole builds through the command line, on the sample data."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from griffon_prep.sample_data import write_sample_data

from ..waiting import TIMEOUT_S

Prep = Callable[..., subprocess.CompletedProcess[str]]


def run_prep(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`griffon-prep ARGUMENTS`, its output captured."""
    return subprocess.run(
        [sys.executable, "-m", "griffon_prep", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        timeout=TIMEOUT_S,
    )


@pytest.fixture
def prep() -> Prep:
    return run_prep


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data of 12 images, the manifest cut to `llava` and `ccmd`; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("small") / "数据 data"
    manifest = write_sample_data(folder, seed=3, images=12)
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if "& llava/" in line or "& ccmd/" in line), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data of 48 images with seed 0, which no test changes."""
    return write_sample_data(tmp_path_factory.mktemp("sample") / "样例 data", seed=0, images=48).parent


@pytest.fixture
def lock_of() -> Callable[[Path], dict[str, Any]]:
    def read(out: Path) -> dict[str, Any]:
        lock: dict[str, Any] = orjson.loads((out / "griffon.lock.json").read_bytes())
        return lock

    return read
