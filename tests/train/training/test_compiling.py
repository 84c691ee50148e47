"""A run on CPUs needs no compiler; if something has to be compiled, obstacles are reported in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_train.training.compiling import announcements, compiled_kernels

from ...waiting import TIMEOUT_S
from .conftest import command


def test_a_run_on_cpus_compiles_nothing(frozen_set: Path, tmp_path: Path) -> None:
    """It has no program on the PATH and no cache of an earlier run."""
    nothing, cache = tmp_path / "bin", tmp_path / "cache"
    nothing.mkdir()
    cache.mkdir()
    line = command(frozen_set, tmp_path / "run", "--device", "cpu", "--steps", 1, "--global-batch", 2)
    ended = subprocess.run(
        [sys.executable, "-m", "griffon_train", *map(str, line)],
        env={**os.environ, "PATH": str(nothing), "HOME": str(cache), "TORCH_EXTENSIONS_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "run" / "model").is_dir()
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert "DeepSpeed" not in ended.stderr


NVME = {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "/local_nvme"}}
QUANTIZED = {"stage": 3, "zero_quantized_weights": True}


@pytest.mark.parametrize(
    ("zero", "kernels"),
    [
        ({"stage": 2}, set()),
        ({"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": None}, set()),
        (NVME, {"async_io"}),
        ({"stage": 3, "offload_param": {"device": "nvme"}}, {"async_io"}),
        (QUANTIZED, {"quantizer"}),
        (NVME | QUANTIZED, {"async_io", "quantizer"}),
    ],
)
def test_what_gets_compiled(zero: dict[str, object], kernels: set[str]) -> None:
    assert set(compiled_kernels(zero)) == kernels


def _programs(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    for index, (there, missing) in enumerate(((("c++",), "ninja"), (("ninja",), "c++"), ((), "ninja and c++"))):
        monkeypatch.setenv("PATH", _programs(tmp_path / str(index), *there))
        with pytest.raises(SettingsError, match=r"async_io.*compiles with ninja, c") as refused:
            announcements(compiled_kernels(NVME))
        assert f"; {missing} cannot be found" in str(refused.value)


def test_compiling_is_announced_and_a_lock_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", _programs(tmp_path / "bin", "ninja", "c++"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "async_io"
    (line,) = announcements(compiled_kernels(NVME))
    assert line.startswith(f"DeepSpeed compiles async_io into {folder}, once")
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    _, line = announcements(compiled_kernels(NVME))
    assert line.startswith(f"{folder / 'lock'} exists: ")
    assert line.endswith(f"delete it: rm {folder / 'lock'}")
    (folder / "lock").unlink()
    (folder / "async_io.so").touch()
    assert announcements(compiled_kernels(NVME)) == []
