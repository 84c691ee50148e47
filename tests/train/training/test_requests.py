"""Requests to stop at any point of a run, and runs in which nothing moves: what is saved and reported."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from griffon_shards.frozen_set import open_set
from griffon_train.data.plan import Plan

from ...waiting import TIMEOUT_S
from ..damage import late_shard, shard_of, stall
from .conftest import metrics_of, steps_told
from .launcher import Launcher, Running
from .test_outside import GLOBAL_BATCH, await_steps, check_no_traceback, checkpoints_of, command, errors

STALL_S = 20
"""Enough for a step of a tiny model on a machine that is busy with other work."""


def stalling_set(copy_of_set: Path) -> tuple[Path, int]:
    """Make reading hang in a step that is not the first; the shard, and the step."""
    step, row = late_shard(Plan([open_set(copy_of_set)], seed=0, global_batch=GLOBAL_BATCH))
    shard = shard_of(copy_of_set, row)
    stall(copy_of_set, row)
    return shard, step


def await_standstill(running: Running, run: Path) -> None:
    """Wait until a run has taken a step and takes no further one."""
    reported, since = 0, time.monotonic()

    def stands() -> bool:
        nonlocal reported, since
        if steps_told(run) != reported:
            reported, since = steps_told(run), time.monotonic()
        return reported > 0 and time.monotonic() - since > 2

    running.wait_until(stands)


def check_stopped(running: Running, run: Path, number: int) -> int:
    """All ranks end well, and the last step is saved; which one it was."""
    ended = running.wait()
    assert ended.codes == [128 + number] * 2, ended.said
    check_no_traceback(ended)
    done = steps_told(run)
    assert checkpoints_of(run)[-1] == done
    line = f"stopped by {signal.Signals(number).name} after step {done}/100; saved: rerun the same command to resume"
    assert f"{line} at step {done}\n" in ended.said[0]
    assert [reported for output in ended.said for reported in errors(output)] == []
    return done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_whole_process_groups(
    number: signal.Signals, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """torchrun, Slurm or a closing terminal send it; reading processes get it too, and some signals come twice."""
    run = tmp_path / "run"
    arguments = command(frozen_set, run, "--workers", 2, steps=100)
    running = launcher.start(arguments, 2)
    await_steps(running, run, 1)
    running.signal_groups(number)
    running.signal_groups(number)
    done = check_stopped(running, run, number)
    running = launcher.start(arguments, 2)
    running.wait_until(lambda: f"resuming at step {done} of 100" in running.said()[0])
    running.signal_groups(signal.SIGKILL)
    running.wait()


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "ranks"])
def test_a_signal_while_data_are_awaited(groups: bool, launcher: Launcher, copy_of_set: Path, tmp_path: Path) -> None:
    """The same command resumes once the data are there."""
    run = tmp_path / "run"
    whole = shutil.copytree(copy_of_set, tmp_path / "whole")
    shard, _ = stalling_set(copy_of_set)
    arguments = command(copy_of_set, run, "--workers", 1, "--save-steps", 1000, steps=100)
    running = launcher.start(arguments, 2)
    await_standstill(running, run)
    (running.signal_groups if groups else running.signal)(signal.SIGTERM)
    done = check_stopped(running, run, signal.SIGTERM)
    shard.unlink()
    shutil.copyfile(whole / shard.relative_to(copy_of_set), shard)
    running = launcher.start(arguments, 2)
    running.wait_until(lambda: steps_told(run) >= done + 2)
    running.signal(signal.SIGTERM)
    assert check_stopped(running, run, signal.SIGTERM) >= done + 2
    assert [item["step"] for item in metrics_of(run)] == list(range(steps_told(run)))


@pytest.mark.parametrize("stalls", [False, True], ids=["reading", "stalling"])
def test_a_signal_while_validating(
    stalls: bool, launcher: Launcher, frozen_set: Path, copy_of_set: Path, tmp_path: Path
) -> None:
    """The validation is given up between two batches, or before it begins, and nothing is recorded of it."""
    run = tmp_path / "run"
    if stalls:
        stalling_set(copy_of_set)
    sets = [option for _ in range(6) for option in ("--val-shards", copy_of_set)]
    arguments = command(frozen_set, run, *sets, "--val-steps", 2, "--workers", 1, steps=100)
    running = launcher.start(arguments, 2)
    await_steps(running, run, 2)
    if stalls:
        await_standstill(running, run)
    running.signal_groups(signal.SIGTERM)
    assert check_stopped(running, run, signal.SIGTERM) == 2
    assert (run / "validation.jsonl").read_bytes() == b""


def test_a_second_ctrl_c_ends_at_once(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """One rank is halted, so the others cannot save; the second Ctrl-C ends even one that waits for it."""
    run = tmp_path / "run"
    running = launcher.start(command(frozen_set, run, steps=1000), 2)
    await_steps(running, run, 1)
    running.signal(signal.SIGSTOP, rank=1)
    running.signal(signal.SIGINT, rank=0)
    running.wait_until(lambda: "SIGINT: saving" in running.said()[0])
    while "ended without saving" not in running.said()[0]:
        running.signal(signal.SIGINT, rank=0)
        time.sleep(0.2)
    running.signal(signal.SIGKILL, rank=1)
    ended = running.wait()
    assert ended.codes == [130, -signal.SIGKILL]
    check_no_traceback(ended)
    assert checkpoints_of(run) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_starting(number: signal.Signals, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """At many moments of the start, the first before any handler is installed."""
    reported = []
    for moment in range(12):
        run = tmp_path / f"run {moment}"
        running = launcher.start(command(frozen_set, run, steps=10**6), 1)
        time.sleep(0.01 + moment * 0.05)
        running.signal_groups(number)
        ended = running.wait()
        assert ended.codes[0] in (128 + number, -number, 130), ended
        check_no_traceback(ended)
        assert checkpoints_of(run) == ([steps_told(run)] if steps_told(run) else [])
        reported.append(ended.said[0])
    assert any(f"stopped by {number.name} before the first step; nothing is lost" in message for message in reported)


def test_ctrl_c_while_torch_is_imported(frozen_set: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "griffon_train", *map(str, command(frozen_set, tmp_path / "run"))]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        maps, end = Path(f"/proc/{process.pid}/maps"), time.monotonic() + TIMEOUT_S
        while "libtorch" not in maps.read_text():
            assert time.monotonic() < end
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert re.fullmatch(r"[\d-]+ [\d:]+ stopped by SIGINT before the first step; nothing is lost\n", output), output


def test_a_hang_ends_the_run(launcher: Launcher, frozen_set: Path, copy_of_set: Path, tmp_path: Path) -> None:
    """A rank in a step, one that never joins, and storage; all at once, for they only wait."""
    options = ("--stall-s", STALL_S)
    stalling_set(copy_of_set)
    in_step, starting, reading = (tmp_path / name for name in ("step", "starting", "reading"))
    never = launcher.start(command(frozen_set, starting, *options), 2)
    never.signal(signal.SIGSTOP, rank=1)
    slow = launcher.start(command(copy_of_set, reading, *options, "--workers", 1, steps=100), 2)
    halted = launcher.start(command(frozen_set, in_step, *options, steps=10**6), 2)
    await_steps(halted, in_step, 2)
    halted.signal(signal.SIGSTOP, rank=1)
    for running in (never, halted):
        running.wait_until(lambda running=running: len(errors(running.said()[0])) > 0)  # type: ignore[misc]
        running.signal(signal.SIGKILL, rank=1)
        ended = running.wait()
        assert ended.codes == [1, -signal.SIGKILL]
        (reported,) = errors(ended.said[0])
        doing = reported.removeprefix(f"rank 0: no progress for {STALL_S} s while ").partition(";")[0]
        done = steps_told(in_step)  # a step ends after it is told
        assert doing in (
            ["joining the other ranks"] if running is never else [f"in step {done - 1}", f"in step {done}"]
        )
        assert "--stall-s" in reported
        assert "griffon_train/training/" in ended.said[0], "where it hung is shown"
    ended = slow.wait()
    assert 1 in ended.codes
    reported = " ".join(line for output in ended.said for line in errors(output))
    assert f"storage stalled: nothing was read for {STALL_S} s, while waiting for step " in reported
    assert str(copy_of_set) in reported
    assert checkpoints_of(in_step) == checkpoints_of(starting) == checkpoints_of(reading) == []


def test_a_rank_shows_its_own_failure(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """It does not report that another rank has ended; only the others do."""
    running = launcher.start(command(frozen_set, tmp_path / "run"), 1, GLOO_SOCKET_IFNAME="nowhere0")
    ended = running.wait()
    assert ended.codes == [1]
    check_no_traceback(ended)
    (reported,) = errors(ended.said[0])
    assert reported.startswith("rank 0 cannot exchange data with the others: ")
    assert "nowhere0" in reported
