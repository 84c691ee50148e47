"""A step of many micro-batches: a few of them are held at once, so open files and memory do not grow with it."""

import resource
from pathlib import Path

from .conftest import command, metrics_of
from .launcher import Launcher

MICRO_BATCHES = 96
OPEN_FILES = 192
"""Of a rank at most; each micro-batch that is held takes several."""


def test_a_step_of_many_micro_batches_takes_few_open_files(
    launcher: Launcher, frozen_set: Path, tmp_path: Path
) -> None:
    """The limit of open files is lowered while the ranks run, below what so many micro-batches would take."""
    options = ("--steps", 2, "--global-batch", MICRO_BATCHES, "--micro-batch", 1, "--max-length", 64, "--workers", 2)
    running = launcher.start(command(frozen_set, tmp_path / "run", *options), 1)
    for pid in running.pids:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    ended = running.wait()
    assert ended.codes == [0], ended.said
    assert [step["step"] for step in metrics_of(tmp_path / "run")] == [0, 1]
