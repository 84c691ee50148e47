"""How a run resumes, what it does when it has ended, and how another run continues from it."""

import shutil
from pathlib import Path

import pytest

from .conftest import FEW, SHORT, checkpoint_of, command, differences, metrics_of, state_of, steps_of, steps_told
from .launcher import Launcher

pytestmark = pytest.mark.xdist_group("resume")  # one process makes the fixtures, which take long


@pytest.mark.parametrize("lines", [9, FEW])
def test_lines_of_repeated_steps_are_truncated(
    lines: int, broken_off: Path, finished: Path, launcher: Launcher, frozen_set: Path
) -> None:
    """Whether the run was killed in the first line after the checkpoint, or three lines later."""
    reported = (finished / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (broken_off / "metrics.jsonl").write_bytes(b"".join(reported[:lines])[:-20])
    assert steps_told(broken_off) == lines - 1
    ended = launcher.run(*command(frozen_set, broken_off, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"resuming at step 8 of {FEW}, from {checkpoint_of(broken_off, 8)}" in ended.said[0]
    assert ": skipped" not in ended.said[0]
    assert differences(finished, broken_off) == []
    assert steps_of(broken_off / "timing.jsonl") == list(range(FEW))


def test_a_finished_run_is_left_as_it_is(finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "again")
    before = state_of(run / "model"), state_of(run / "checkpoints")
    ended = launcher.run(*command(frozen_set, run, *SHORT))
    assert ended.codes == [0, 0], ended.said
    assert f"done: {FEW} steps" in ended.said[0]
    assert "loss" not in ended.said[0]
    assert differences(finished, run) == []
    assert (state_of(run / "model"), state_of(run / "checkpoints")) == before


def test_the_same_in_another_folder_with_the_set_elsewhere(
    finished: Path, launcher: Launcher, copy_of_set: Path, tmp_path: Path
) -> None:
    ended = launcher.run(*command(copy_of_set, tmp_path / "elsewhere", *SHORT, "--save-steps", 5, "--workers", 1))
    assert ended.codes == [0, 0], ended.said
    assert differences(finished, tmp_path / "elsewhere") == []


def test_a_run_continues_from_what_another_has_left(
    finished: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """The refusal suggests it: the weights are taken over, and the schedule starts again."""
    arguments = command(frozen_set, tmp_path / "longer", *SHORT, "--steps", 3, "--from", finished)
    ended = launcher.run(*(argument for argument in arguments if argument not in ("--model", "tiny-gemma2")))
    assert ended.codes == [0, 0], ended.said
    first, longer = metrics_of(finished), metrics_of(tmp_path / "longer")
    assert longer[0]["loss"] < first[0]["loss"]
    assert (longer[0]["lr"], longer[0]["batch_id"]) == (first[0]["lr"], first[0]["batch_id"])
