"""The sample data and a set frozen from it, made once a session; tests that damage the set take a copy."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from griffon_prep.sample_data import write_sample_data


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample data: 24 images, annotations of every task and format, `manifest.txt`."""
    return write_sample_data(tmp_path_factory.mktemp("demo") / "样例 data", seed=0, images=24).parent


@pytest.fixture(scope="session")
def freeze_demo(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Freezes the sample data into a folder, as a user does, with further options of `griffon-prep build`.

    The sources are those of the formats `llava` and `ccmd`: one or two of every task.
    """
    few = tmp_path_factory.mktemp("few") / "manifest.txt"
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    few.write_text("".join(line for line in lines if "& llava/" in line or "& ccmd/" in line), encoding="utf-8")

    def freeze(out: Path, *options: str) -> Path:
        manifest = ["--manifest", str(few), "--data-root", str(demo_data)]
        command = [sys.executable, "-m", "griffon_prep", "build", *manifest, "--out", str(out), "--workers", "2"]
        built = subprocess.run([*command, *options], capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
        return out

    return freeze


@pytest.fixture(scope="session")
def frozen_set(tmp_path_factory: pytest.TempPathFactory, freeze_demo: Callable[..., Path]) -> Iterator[Path]:
    """The sample data, frozen into several shards a source. At the end: nobody has written into the set."""
    out = freeze_demo(tmp_path_factory.mktemp("冻结 set") / "out", "--samples-per-shard", "20")
    before = _state_of(out)
    yield out
    assert _state_of(out) == before


@pytest.fixture
def copy_of_set(frozen_set: Path, tmp_path: Path) -> Path:
    """A copy of the frozen set that a test may damage."""
    return shutil.copytree(frozen_set, tmp_path / "copy")


def _state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files."""
    paths = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}
