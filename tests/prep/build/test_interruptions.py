"""Changes between a kill and the next run, and labels that could be taken for boxes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from griffon_shards import verify_set

from ...waiting import TIMEOUT_S
from ..conftest import Prep

LockOf = Callable[[Path], dict[str, Any]]


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(small_data, tmp_path / "data")
    (folder / "m.txt").write_text("DET & ccmd/det.jsonl & pictures\nVG & ccmd/vg.jsonl & pictures\n")
    return folder


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    manifest = ["--manifest", str(data / "m.txt"), "--data-root", str(data)]
    return ["build", *manifest, "--out", str(out), "--samples-per-shard", "1", "--workers", "2", *more]


def kill_when(condition: Callable[[], bool], command: list[str]) -> None:
    """Run griffon-prep and kill it, with its workers, as soon as the condition holds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "griffon_prep", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not condition():
        assert process.poll() is None, "the build ended before it could be killed"
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reports(out: Path) -> list[Path]:
    return sorted(out.glob(".griffon-build/*/*.report"))


def test_an_annotation_that_grew_after_a_kill_in_the_scan(
    data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf
) -> None:
    out = tmp_path / "set"
    kill_when(lambda: bool(list(out.glob(".griffon-build/*/source.json"))), arguments(data, out))
    if (out / ".griffon-build/build.json").exists():
        pytest.skip("the build had begun before it was killed")
    det = data / "ccmd/det.jsonl"
    det.write_bytes(det.read_bytes() * 2)
    assert prep(*arguments(data, out)).returncode == 0
    assert prep(*arguments(data, tmp_path / "fresh")).returncode == 0
    assert lock_of(out) == lock_of(tmp_path / "fresh")


def test_inputs_and_set_that_moved_after_a_kill(data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf) -> None:
    out, moved = tmp_path / "set", tmp_path / "elsewhere"
    assert prep(*arguments(data, tmp_path / "fresh")).returncode == 0
    kill_when(lambda: len(reports(out)) >= 3, arguments(data, out))
    moved.mkdir()
    data.rename(moved / "data")
    out.rename(moved / "set")
    result = prep(*arguments(moved / "data", moved / "set"))
    assert result.returncode == 0, result.stderr
    assert lock_of(moved / "set") == lock_of(tmp_path / "fresh")


@pytest.mark.parametrize("damage", ["empty", "cut"])
@pytest.mark.parametrize("name", ["annotations.json", "DET/source.json", "DET/*.report", "DET/../../DET/*.tar.idx"])
def test_work_files_that_a_power_cut_left_damaged(
    data: Path, tmp_path: Path, prep: Prep, lock_of: LockOf, name: str, damage: str
) -> None:
    out = tmp_path / "set"
    assert prep(*arguments(data, tmp_path / "fresh")).returncode == 0
    kill_when(lambda: len([path for path in reports(out) if path.parent.name == "DET"]) >= 4, arguments(data, out))
    path = sorted((out / ".griffon-build").glob(name))[0]
    path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-3])
    result = prep(*arguments(data, out))
    assert result.returncode == 0, result.stderr
    assert lock_of(out) == lock_of(tmp_path / "fresh")
    assert list(verify_set(out)) == []


def test_a_damaged_plan_says_what_to_do(data: Path, tmp_path: Path, prep: Prep) -> None:
    out = tmp_path / "set"
    kill_when(lambda: len(reports(out)) >= 2, arguments(data, out))
    (out / ".griffon-build/build.json").write_bytes(b"")
    result = prep(*arguments(data, out))
    assert (result.returncode, "start over with --overwrite" in result.stderr) == (1, True)
    assert prep(*arguments(data, out, "--overwrite")).returncode == 0


def test_overwrite_continues_with_what_it_began(data: Path, tmp_path: Path, prep: Prep) -> None:
    out = tmp_path / "set"
    assert prep(*arguments(data, out, "--seed", "1")).returncode == 0
    kill_when(lambda: len(reports(out)) >= 4, arguments(data, out, "--overwrite"))
    finished = [out / path.parent.name / f"{path.parent.name}-{path.stem}.tar" for path in reports(out)]
    inodes = {tar: tar.stat().st_ino for tar in finished if tar.exists()}
    assert prep(*arguments(data, out, "--overwrite")).returncode == 0
    assert inodes and inodes == {tar: tar.stat().st_ino for tar in inodes}


@pytest.mark.parametrize("name", ["index.npy", "rejects.jsonl"])
def test_reuse_of_a_damaged_set_is_refused(data: Path, tmp_path: Path, prep: Prep, name: str) -> None:
    old = tmp_path / "old"
    assert prep(*arguments(data, old)).returncode == 0
    path = old / name
    content = bytearray(path.read_bytes() or b"{}\n")
    content[-1] ^= 1
    path.write_bytes(content)
    result = prep(*arguments(data, tmp_path / "new", "--reuse", str(old)))
    assert result.returncode == 1
    assert str(path) in result.stderr


def test_terminated_by_a_scheduler(data: Path, tmp_path: Path, prep: Prep) -> None:
    out = tmp_path / "set"
    process = subprocess.Popen(
        [sys.executable, "-m", "griffon_prep", *arguments(data, out)], stderr=subprocess.PIPE, text=True
    )
    while len(reports(out)) < 2:
        time.sleep(0.005)
    process.terminate()
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted; rerun the same command to resume"


def test_closed_standard_streams(data: Path, tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in [sys.executable, "-m", "griffon_prep", *arguments(data, tmp_path / "set")])
    assert subprocess.run(f"{words} <&- >&- 2>&-", shell=True, timeout=TIMEOUT_S).returncode == 0
    assert (tmp_path / "set/griffon.lock.json").exists()


@pytest.mark.parametrize(
    ("style", "label"), [("text", "x-[0.100,0.200,0.300,0.400]"), ("bin", "<bin_1><bin_2><bin_3><bin_4>")]
)
def test_a_label_that_holds_a_box_is_rejected(data: Path, tmp_path: Path, prep: Prep, style: str, label: str) -> None:
    record = orjson.loads((data / "ccmd/det.jsonl").read_bytes().splitlines()[0])
    record["objects"][0]["category_name"] = label
    with (data / "ccmd/det.jsonl").open("ab") as file:
        file.write(orjson.dumps(record) + b"\n")
    result = prep(*arguments(data, tmp_path / "set", "--boxes", style))
    assert result.returncode == 0, result.stderr
    assert " contains a box, so the answer" in result.stderr
    assert list(verify_set(tmp_path / "set", deep=True)) == []
