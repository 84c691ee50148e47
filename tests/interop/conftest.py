"""A frozen set as the command lines make it, and what our own reader finds in it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from griffon_shards.frozen_set import open_set
from griffon_shards.types import Sample


@pytest.fixture(scope="session", autouse=True)
def no_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hugging Face libraries take these at import; no test may call home or write into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        yield


@pytest.fixture(scope="session")
def frozen_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sample data, frozen into several shards a source. At the end: nobody has written into the set."""
    folder = tmp_path_factory.mktemp("冻结 set")
    data, out = folder / "data", folder / "out"
    run("sample-data", str(data))
    manifest = ["--manifest", str(data / "manifest.txt"), "--data-root", str(data)]
    run("build", *manifest, "--out", str(out), "--workers", "2", "--samples-per-shard", "40")
    before = state_of(out)
    yield out
    assert state_of(out) == before


@pytest.fixture(scope="session")
def samples(frozen_set: Path) -> list[Sample]:
    """All samples in shard order, as our own reader gives them."""
    ours = open_set(frozen_set)
    return [ours[row] for row in range(len(ours))]


@pytest.fixture(scope="session")
def tars(frozen_set: Path) -> list[str]:
    """The paths of all shards in the order of the set."""
    return [str(frozen_set / shard.name) for shard in open_set(frozen_set).lock.shards]


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "griffon_prep", *arguments], check=True)


def state_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of all files."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
