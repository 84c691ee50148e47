"""A disk that is full for the log or for the result, and the check of disk space at the start."""

import logging
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from griffon_shards.support.errors import DataError
from griffon_train.training.disk_space import Need, check_room

from .conftest import checkpoint_of, differences, metrics_of, steps_told
from .launcher import Ended, Launcher

MB = 1_000_000


def command(shards: Path, run: Path, *options: object, stage: str = "custom", steps: int = 6) -> list[object]:
    fixed = ("--stage", stage, "--model", "tiny-qwen2", "--global-batch", 4, "--workers", 0, "--max-length", 512)
    return ["run", *fixed, "--shards", shards, "--output-dir", run, "--steps", steps, *options]


def told(ended: Ended, rank: int = 0) -> str:
    """The one line of error that a rank ends with."""
    assert "Traceback" not in ended.said[rank]
    (line,) = [line for line in ended.said[rank].splitlines() if line.startswith("error: ")]
    return line


def test_a_full_disk_for_the_log(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """First TensorBoard's file hits the limit, and the run continues; then the metrics do, and it ends."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    ended = launcher.run(*command(frozen_set, whole, steps=40))
    assert ended.codes == [0, 0], ended.said
    running = launcher.start(command(frozen_set, run, steps=40), 2)
    running.wait_until(lambda: steps_told(run) >= 2)
    room = max(path.stat().st_size for path in (*run.glob("tensorboard/*"), run / "metrics.jsonl")) + 1000
    resource.prlimit(running.pids[0], resource.RLIMIT_FSIZE, (room, room))  # the kernel lets no file grow further
    ended = running.wait()
    assert ended.codes == [1, 1], ended.said
    (board,) = [line for line in ended.said[0].splitlines() if "tensorboard" in line]
    assert f" warning: {run}/tensorboard/events.out.tfevents." in board
    assert "File too large; the run continues without TensorBoard from step " in board
    last = steps_told(run)
    assert told(ended).startswith(
        f"error: {run}/metrics.jsonl: File too large; step {last} could not be logged, and the "
    )
    assert "There is no checkpoint yet; " in told(ended)
    assert told(ended, 1) == "error: rank 1: another rank has ended; see its error message"
    ended = launcher.run(*command(frozen_set, run, steps=40))
    assert ended.codes == [0, 0], ended.said
    assert differences(run, whole) == []


@pytest.mark.parametrize(
    ("stage", "ranks", "room", "result"),
    [("custom", 2, 540_000, "model"), ("alignment", 4, 36_000, "mm_projector.bin")],
)
def test_a_full_disk_for_the_result(
    stage: str, ranks: int, room: int, result: str, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """A rank's part of a checkpoint fits, but the complete result in one file does not."""
    run = tmp_path / "run"
    running = launcher.start(command(frozen_set, run, stage=stage), ranks)
    running.wait_until(lambda: steps_told(run) >= 1)
    resource.prlimit(running.pids[0], resource.RLIMIT_FSIZE, (room, room))
    ended = running.wait()
    assert ended.codes == [1] * ranks, ended.said
    for rank in range(ranks):
        assert told(ended, rank).startswith(f"error: {run / result} cannot be written: ")
        assert "All 6 steps are trained. The checkpoint at step 6 is intact: free space, then rerun" in told(
            ended, rank
        )
    assert not list(run.glob(f"*{result}*")), "no part of it takes room"
    ended = launcher.run(*command(frozen_set, run, stage=stage), world_size=1)
    assert ended.codes == [0], ended.said
    assert (run / result).exists()
    assert len(metrics_of(run)) == 6


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_disk_space_is_compared_at_the_start(small_disk: Path, launcher: Launcher, frozen_set: Path) -> None:
    """A checkpoint takes 1 MB. If only two fit, a warning is logged; if none fits, the run does not start."""
    run = small_disk / "run"
    ended = launcher.run(*command(frozen_set, run, "--save-steps", 2), world_size=1)
    assert ended.codes == [1], ended.said
    (warning,) = [line for line in ended.said[0].splitlines() if " warning: " in line]
    assert f" warning: {run}: a checkpoint takes about 1.0 MB; up to 3 of them at a time and the " in warning
    assert warning.endswith(
        " need 3.1 MB more, and 2.1 MB are free; free space while it trains, or give a smaller --keep"
    )
    assert "at step 4: rank 0: [Errno 28] a checkpoint takes 1.0 MB, which is " in told(ended)
    assert "The checkpoint at step 2 is intact" in told(ended)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]

    kept = shutil.copytree(run, small_disk.with_name("kept"))
    (small_disk / "others").write_bytes(b" " * MB)
    ended = launcher.run(*command(frozen_set, run, "--save-steps", 2), world_size=1)
    assert ended.codes == [1], ended.said
    assert told(ended).startswith(f"error: {run}: a checkpoint takes about 1.0 MB, but only ")
    assert told(ended).endswith("are free; free space, or give an --output-dir on another disk")
    assert (run / "metrics.jsonl").read_bytes() == (kept / "metrics.jsonl").read_bytes()

    ended = launcher.run(*command(frozen_set, small_disk / "new"), world_size=1)
    assert ended.codes == [1], ended.said
    assert not (small_disk / "new").exists(), "nothing is left of a run that could not begin"

    (small_disk / "others").unlink()
    ended = launcher.run(*command(frozen_set, run, "--save-steps", 2, "--keep", 1), world_size=1)
    assert ended.codes == [1], ended.said  # two checkpoints and what else there is are more than 2 MiB
    shutil.copytree(run, small_disk.with_name("larger"))
    ended = launcher.run(*command(frozen_set, small_disk.with_name("larger"), "--save-steps", 2), world_size=1)
    assert ended.codes == [0], ended.said
    assert checkpoint_of(small_disk.with_name("larger"), 6).exists()


def test_disk_space_counts_existing_files(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    run = tmp_path / "not" / "there"
    assert " need 5.0 MB more" in check_room(run, Need(checkpoint_bytes=2 * MB, checkpoints=2, result_bytes=3 * MB))[1]
    assert (
        " need 1.0 MB more"
        in check_room(run, Need(checkpoint_bytes=2 * MB, checkpoints=2, there_bytes=4 * MB, result_bytes=3 * MB))[1]
    )
    with pytest.raises(DataError, match="free space"):
        check_room(run, Need(checkpoint_bytes=2 * free, checkpoints=2))
    assert check_room(run, Need(checkpoint_bytes=free // 2, checkpoints=1))[0] == logging.INFO
    assert check_room(run, Need(checkpoint_bytes=free // 2, checkpoints=4))[0] == logging.WARNING
    # Of a run that is given fewer checkpoints to keep, since its disk is full.
    assert check_room(run, Need(checkpoint_bytes=free + MB, checkpoints=2, going_bytes=free))[0] == logging.WARNING
