"""A build that is killed, interrupted, or out of disk space is finished by the same command, with the same digest."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ...waiting import TIMEOUT_S
from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]


def arguments(data: Path, out: Path) -> list[str]:
    manifest = ["--manifest", str(data / "manifest.txt"), "--data-root", str(data)]
    return ["build", *manifest, "--out", str(out), "--workers", "2", "--samples-per-shard", "1"]


def start(data: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "griffon_prep", *arguments(data, out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished_shards(out: Path) -> dict[str, int]:
    """Shards whose reports say that they are finished, and their inodes."""
    reports = out.glob(".griffon-build/*/*.report")
    tars = (out / path.parent.name / f"{path.parent.name}-{path.stem}.tar" for path in reports)
    return {tar.name: tar.stat().st_ino for tar in tars if tar.exists()}


def wait_for_shards(out: Path, process: subprocess.Popen[str], count: int) -> None:
    until = time.monotonic() + TIMEOUT_S
    while len(finished_shards(out)) < count:
        assert process.poll() is None, "the build ended before it could be stopped"
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(scope="module")
def digest(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of an undisturbed build."""
    process = start(small_data, tmp_path_factory.mktemp("undisturbed") / "set")
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    return out.splitlines()[-1]


def test_25_kills(small_data: Path, tmp_path: Path, digest: str, prep: Prep) -> None:
    out = tmp_path / "set"
    moments = random.Random(11)
    for i in range(25):
        process = start(small_data, out)
        wait_for_shards(out, process, min(i + 1, 40))
        time.sleep(moments.uniform(0, 0.05))
        before = finished_shards(out)
        if i % 2:
            process.kill()  # the build alone: its workers must not continue
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=TIMEOUT_S)
        after = finished_shards(out)
        assert before.items() <= after.items(), "a finished shard was lost or made again"
    survivors = finished_shards(out)
    result = prep(*arguments(small_data, out))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == digest
    assert all((out / name.rpartition("-")[0] / name).stat().st_ino == inode for name, inode in survivors.items())
    assert not [path for path in out.rglob("*") if path.name.startswith(".tmp-")]
    left = {path.name for path in (out / ".griffon-build").iterdir() if path.suffix != ".counts"}
    assert left == {"annotations.json", "lock"}


def test_interrupt(small_data: Path, tmp_path: Path, digest: str, prep: Prep) -> None:
    out = tmp_path / "set"
    process = start(small_data, out)
    wait_for_shards(out, process, 3)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; rerun the same command to resume"
    assert "Traceback" not in err
    assert prep(*arguments(small_data, out)).stdout.splitlines()[-1] == digest


def test_second_build_is_refused(small_data: Path, tmp_path: Path, digest: str, prep: Prep) -> None:
    out = tmp_path / "set"
    first = start(small_data, out)
    wait_for_shards(out, first, 1)
    first.send_signal(signal.SIGSTOP)
    second = prep(*arguments(small_data, out))
    first.send_signal(signal.SIGCONT)
    output, _ = first.communicate(timeout=TIMEOUT_S)
    assert second.returncode == 2
    assert f"another build is writing into it (process {first.pid} on " in second.stderr
    assert output.splitlines()[-1] == digest


def test_a_file_that_cannot_be_written(small_data: Path, tmp_path: Path, digest: str, prep: Prep) -> None:
    """A limit on file size stands for a full disk: writing fails in the middle of a shard."""
    out = tmp_path / "set"
    largest = max(path.stat().st_size for path in (small_data / "pictures").rglob("*") if path.is_file())
    result = subprocess.run(
        [sys.executable, "-m", "griffon_prep", *arguments(small_data, out)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest)),
        timeout=TIMEOUT_S,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: {out}")
    assert "File too large" in result.stderr
    assert not (out / "griffon.lock.json").exists()
    assert prep(*arguments(small_data, out)).stdout.splitlines()[-1] == digest


def test_too_little_disk_space_is_reported_before_anything_is_written(tmp_path: Path, prep: Prep) -> None:
    """Half a million records of an image of 20 MB: an estimate of 10 TB."""
    picture = tmp_path / "large.jpg"
    picture.write_bytes(b"\xff\xd8")
    os.truncate(picture, 20_000_000)
    line = '{"image_path": "large.jpg", "width": 9, "height": 9, "expression": "a", "bboxes": []}\n'
    (tmp_path / "vg.jsonl").write_text(line * 500_000)
    (tmp_path / "m.txt").write_text("VG & vg.jsonl & .\n")
    out = tmp_path / "sets" / "out"
    result = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", out, "--check", "none")
    assert result.returncode == 1
    assert "VG: 500,000 records, about 500,000 samples and 10.0 TB;" in result.stderr
    assert "free some space" in result.stderr
    assert not out.exists()


def test_other_settings_do_not_continue_an_unfinished_build(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    out = tmp_path / "set"
    process = start(small_data, out)
    wait_for_shards(out, process, 2)
    process.kill()
    process.communicate()
    other = prep(*arguments(small_data, out), "--seed", 5)
    assert other.returncode == 1
    assert "unfinished build with other inputs (--seed was 0 and is 5)" in other.stderr
    anew = prep(*arguments(small_data, out), "--seed", 5, "--overwrite")
    assert anew.returncode == 0, anew.stderr
