"""Parts of a build, run by several processes in any order, make the same set as a build in one go."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from click.testing import CliRunner

from griffon_prep.cli import main
from griffon_shards import verify_set
from griffon_shards.lock import read_lock

from ...waiting import TIMEOUT_S

HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


def arguments(data: Path, out: Path, *more: object) -> list[str]:
    manifest = ["--manifest", str(data / "manifest.txt"), "--data-root", str(data)]
    return ["build", *manifest, "--out", str(out), "--workers", "1", "--samples-per-shard", "1", *map(str, more)]


def start(data: Path, out: Path, *more: object) -> ForkProcess:
    """Start griffon-prep in a forked process, which spares it the imports."""
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments(data, out, *more),))
    process.start()
    return process


def exit_code(process: ForkProcess) -> int | None:
    process.join(TIMEOUT_S)
    return process.exitcode


def run(data: Path, out: Path, *more: object) -> int | None:
    return exit_code(start(data, out, *more))


def wait_until(condition: Callable[[], object], process: ForkProcess) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process.is_alive(), "the process ended too early"
        assert time.monotonic() < until
        time.sleep(0.001)


def reports(out: Path) -> list[Path]:
    return sorted(out.glob(".griffon-build/*/*.report"))


def tars(out: Path) -> dict[str, int]:
    """The shards and their inodes."""
    return {path.name: path.stat().st_ino for path in out.glob("*/*.tar")}


@pytest.fixture(scope="module")
def plain(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of a build in one go."""
    out = tmp_path_factory.mktemp("plain") / "set"
    assert run(small_data, out) == 0
    return out


def assert_same_set(out: Path, plain: Path) -> None:
    assert read_lock(out).digest == read_lock(plain).digest
    assert list(verify_set(out)) == []
    assert (out / "report.html").read_bytes() == (plain / "report.html").read_bytes()
    assert not list(out.rglob(".tmp-*"))


def test_parts_in_drawn_order(small_data: Path, tmp_path: Path, plain: Path) -> None:
    """Two at once, even with the same part; one killed in the middle; some twice."""
    out = tmp_path / "set"
    order = [*range(1, 17), 2, 11]
    random.Random(5).shuffle(order)
    order = [order[0], order[0], *order[1:]]
    killed = start(small_data, out, "--part", "1/2")
    wait_until(lambda: len(reports(out)) >= 3, killed)
    scans = {path: path.stat().st_ino for path in out.glob(".griffon-build/*/source.json")}
    killed.kill()
    assert exit_code(killed) == -signal.SIGKILL
    finished = tars(out)
    assert 3 <= len(finished) < len(tars(plain)) // 2
    for first, second in zip(order[::2], [*order[1::2], 16], strict=False):
        together = [start(small_data, out, "--part", f"{number}/16") for number in (first, second)]
        assert [exit_code(process) for process in together] == [0, 0]
        assert not (out / "griffon.lock.json").exists()
    assert scans == {path: path.stat().st_ino for path in out.glob(".griffon-build/*/source.json")}, "scanned again"
    assert run(small_data, out, "--finish") == 0
    assert_same_set(out, plain)


def test_a_part_waits_for_the_one_that_scans_but_not_for_a_dead_one(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    lock = out / ".griffon-build" / "scan.lock"
    lock.parent.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        command = [sys.executable, "-m", "griffon_prep", *arguments(small_data, out, "--part", "1/16")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as part:
            assert part.stderr is not None
            assert "another part is preparing" in part.stderr.readline()
            assert part.poll() is None and not reports(out)
            holder.kill()
            printed, _ = part.communicate(timeout=TIMEOUT_S)
    assert part.returncode == 0
    assert printed.startswith("part 1/16: ")
    assert len(reports(out)) > 0


def test_finish_names_what_is_missing(
    small_data: Path, tmp_path: Path, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run(small_data, out, "--finish") == 1
    assert "no part of the build has run here" in capfd.readouterr().err
    assert not out.exists()
    assert [run(small_data, out, "--part", f"{number}/4") for number in (3, 1)] == [0, 0]
    lost = out / "LAZY_caption" / "LAZY_caption-000000.tar"
    lost.unlink()
    missing = sorted(set(tars(plain)) - set(tars(out)))
    before = tars(out)
    assert run(small_data, out, "--finish") == 1
    error = capfd.readouterr().err.splitlines()[-1]
    assert f"{len(missing)} of {len(tars(plain))} shards missing: " in error
    assert lost.name in error
    assert "(of the 4 parts: 1,2,4)" in error
    assert tars(out) == before and not (out / "griffon.lock.json").exists()
    assert [run(small_data, out, "--part", f"{number}/4") for number in (1, 2, 4)] == [0, 0, 0]
    assert run(small_data, out, "--finish") == 0
    assert_same_set(out, plain)


def test_a_build_without_parts_makes_what_is_missing(
    small_data: Path, tmp_path: Path, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert run(small_data, out, "--part", "2/3") == 0
    made = tars(out)
    part = start(small_data, out, "--part", "1/3")
    wait_until(lambda: len(tars(out)) > len(made), part)
    assert part.pid is not None
    os.kill(part.pid, signal.SIGSTOP)
    try:
        for more in ([], ["--finish"]):
            assert run(small_data, out, *more) == 2
            assert "another build, or a part of this one, is writing into it" in capfd.readouterr().err
    finally:  # a stopped process would keep pytest from ending
        os.kill(part.pid, signal.SIGCONT)
    assert exit_code(part) == 0
    made = tars(out)
    assert run(small_data, out) == 0
    assert made.items() <= tars(out).items(), "a finished shard was made again"
    assert_same_set(out, plain)


def test_other_settings_are_refused(small_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    assert run(small_data, out, "--part", "1/4") == 0
    before = tars(out)
    for how in (["--part", "2/4"], ["--finish"], []):
        assert run(small_data, out, *how, "--seed", 5) == 1
        assert "unfinished build with other inputs (--seed was 0 and is 5)" in capfd.readouterr().err
    assert tars(out) == before


def test_a_late_part_leaves_the_frozen_set_alone(
    small_data: Path, tmp_path: Path, plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(plain, tmp_path / "set")
    before = {
        path: path.stat().st_mtime_ns
        for path in out.rglob("*")
        if path.is_file() and path.parent != out / ".griffon-build"
    }
    assert run(small_data, out, "--part", "1/4") == 0
    assert capfd.readouterr().out == "part 1/4: nothing to do, the set is frozen\n"
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert run(small_data, out, "--part", "1/4", "--seed", 5) == 1


def test_rejects_are_limited_over_all_parts(
    small_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = orjson.loads((small_data / "ccmd" / "det.jsonl").read_bytes().splitlines()[0])
    lost = {**record, "image_path": "lost.jpg"}
    data, out = tmp_path / "data", tmp_path / "set"
    data.mkdir()
    (data / "det.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in [record, lost] * 12))
    (data / "manifest.txt").write_text(f"DET & det.jsonl & {small_data / 'pictures'}\n", encoding="utf-8")
    assert [run(data, out, "--part", f"{number}/2") for number in (1, 2)] == [0, 0]
    assert run(data, out, "--finish") == 1
    assert capfd.readouterr().err.endswith("error: DET: 12 records rejected, but --max-rejects allows 10\n")
    assert run(data, out, "--finish", "--max-rejects", "50%") == 0
    assert read_lock(out).sources[0].rejected == {"picture_not_found": 12}


def test_parts_reuse_a_set(small_data: Path, tmp_path: Path, plain: Path) -> None:
    out = tmp_path / "set"
    together = [start(small_data, out, "--part", f"{number}/2", "--reuse", plain) for number in (1, 2)]
    assert [exit_code(process) for process in together] == [0, 0]
    assert run(small_data, out, "--reuse", plain, "--finish") == 0
    assert tars(out) == tars(plain), "the shards are not linked"
    assert_same_set(out, plain)


def test_the_first_part_checks_the_free_space_for_all(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is as large as the set, and parts that come late need not find room for all of it again."""
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert run(small_data, out, "--part", "1/2") == 1
        assert not tars(out)
    assert run(small_data, out, "--part", "1/2") == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert run(small_data, out, "--part", "2/2") == 0
    assert run(small_data, out, "--finish") == 0


@pytest.mark.parametrize("part", ["0/3", "4/3", "3", "x/3", "1/0", "-1/3", "1/3/5"])
def test_what_is_not_a_part(part: str) -> None:
    result = CliRunner().invoke(main, ["build", "--manifest", "m.txt", "--part", part])
    assert (result.exit_code, f"'{part}' is not a part" in result.output) == (2, True)


@pytest.mark.parametrize("other", ["--finish", "--overwrite", "--recheck"])
def test_options_that_do_not_go_with_a_part(small_data: Path, tmp_path: Path, other: str) -> None:
    assert run(small_data, tmp_path / "set", "--part", "1/2", other) == 2
    assert not (tmp_path / "set").exists()
