"""Checkpoints that are damaged, incomplete or not the run's own: which one it resumes from, and what it deletes."""

import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from .conftest import FEW, SHORT, checkpoint_of, command, differences, state_of
from .launcher import Launcher

pytestmark = pytest.mark.xdist_group("damaged_checkpoints")  # one process makes the fixtures, which take long


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoints_in(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("name", ["rank-00001.safetensors", "checkpoint.json"])
def test_a_checkpoint_with_a_truncated_file_is_skipped(
    name: str, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    path = checkpoint_of(broken_off, 8) / name
    path.write_bytes(path.read_bytes()[:-1])
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    (line,) = [line for line in ended.said[0].splitlines() if ": skipped" in line]
    assert "step-00000008" in line
    assert name in line or name == "checkpoint.json"
    assert f"resuming at step 4 of {FEW}" in ended.said[0]
    assert differences(finished, broken_off) == []


def test_a_checkpoint_whose_index_says_otherwise_is_skipped(
    broken_off: Path, launcher: Launcher, finished: Path, frozen_set: Path
) -> None:
    """The index holds the optimizer's count of steps, for instance, which nothing else would show to be wrong."""
    path = checkpoint_of(broken_off, 8) / "checkpoint.json"
    path.write_bytes(path.read_bytes().replace(b'"optimizer_steps":8', b'"optimizer_steps":9'))
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert "step-00000008/checkpoint.json is damaged" in ended.said[0]
    assert (broken_off / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_checkpoint_with_a_flipped_bit_is_skipped(
    rank: int, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """The run resumes from the one before, and ends with the same bytes."""
    path = checkpoint_of(broken_off, 8) / f"rank-{rank:05d}.safetensors"
    flip(path)
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"step-00000008/{path.name} is damaged (its SHA-256 is not the recorded one): skipped" in ended.said[0]
    assert f"resuming at step 4 of {FEW}" in ended.said[0]
    assert differences(finished, broken_off) == []


def senseless(folder: Path) -> None:
    (folder / "checkpoint.json").write_text("7")


def another(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-00000004"), folder)


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "weights": lambda folder: flip(folder / "rank-00000.safetensors"),
    "index": lambda folder: flip(folder / "checkpoint.json"),
    "index without sense": senseless,
    "no index": lambda folder: (folder / "checkpoint.json").unlink(),
    "another's name": another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_does_not_outlive_complete_ones(
    damage: str, broken_off: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """With one to keep, the latest complete one is kept; the damaged one only until its step is reached again."""
    DAMAGES[damage](checkpoint_of(broken_off, 8))
    options = (*SHORT, "--save-steps", 3, "--keep", 1, "--workers", 0)
    running = launcher.start(command(frozen_set, broken_off, *options), 1)
    running.wait_until(lambda: not checkpoint_of(broken_off, 4).exists())
    running.signal(signal.SIGKILL)
    running.wait()
    there = [name for name in checkpoints_in(broken_off) if not name.startswith(".tmp-")]
    assert there == ["aside-step-00000008", "step-00000006"] or there[-1] == "step-00000009"  # if it was faster
    ended = launcher.run(*command(frozen_set, broken_off, *options), world_size=1)
    assert ended.codes == [0], ended.said
    assert f"resuming at step {there[-1][-1]} of {FEW}" in ended.said[0]
    assert checkpoints_in(broken_off) == ["step-00000012"]


def test_checkpoints_that_are_none_of_the_line_are_not_counted(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Copies under other names are never deleted; a damaged one between complete ones does not count."""
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(checkpoint_of(run, FEW))
    shutil.copytree(checkpoint_of(run, 4), run / "checkpoints" / "step-00000099.bak")
    shutil.copytree(checkpoint_of(run, 4), checkpoint_of(run, 6))
    (checkpoint_of(run, 6) / "rank-00000.safetensors").unlink()
    ended = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 2))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step 8 of {FEW}" in ended.said[0]
    assert checkpoints_in(run) == ["step-00000008", "step-00000012", "step-00000099.bak"]
    more = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 1))  # of a run that is done, and with more to keep
    assert more.codes == [0, 0], more.said
    assert checkpoints_in(run) == ["step-00000012", "step-00000099.bak"]
    more = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 50))
    assert (more.codes, checkpoints_in(run)) == ([0, 0], ["step-00000012", "step-00000099.bak"])


def test_killed_between_a_checkpoint_and_the_deletion_of_older_ones(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """Or in the middle of a deletion: the next start deletes the rest."""
    run = shutil.copytree(finished, tmp_path / "run")
    moved = checkpoint_of(run, 8).rename(tmp_path / "on another disk")
    checkpoint_of(run, 8).symlink_to(moved)
    checkpoint_of(run, 4).rename(run / "checkpoints" / ".tmp-removed-step-00000004")
    (run / "checkpoints" / ".tmp-removed-step-00000004" / "checkpoint.json").unlink()
    ended = launcher.run(*command(frozen_set, run, *SHORT, "--keep", 1))
    assert ended.codes == [0, 0], ended.said
    assert ": skipped" not in ended.said[0]
    assert checkpoints_in(run) == ["step-00000012"]
    assert (moved / "checkpoint.json").exists(), "only the link to it is deleted"


def test_a_run_without_a_complete_checkpoint_is_refused(broken_off: Path, launcher: Launcher, frozen_set: Path) -> None:
    """Otherwise all training would be lost silently. Nothing is deleted or restarted."""
    for step in (4, 8):
        flip(checkpoint_of(broken_off, step) / "rank-00001.safetensors")
    before = state_of(broken_off / "checkpoints")
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [1, 1], ended.said
    for output in ended.said:
        line = output.splitlines()[-1]
        assert line.startswith(
            f"error: none of the checkpoints in {broken_off / 'checkpoints'} is complete (step-00000008/"
        )
        assert line.endswith(f"restore one from a copy, or delete {broken_off} to start over")
        assert "Traceback" not in output
    assert state_of(broken_off / "checkpoints") == before
