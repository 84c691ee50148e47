"""`griffon-train checkpoint`: what it lists, which damage it names, and what it never deletes."""

import re
import shutil
from pathlib import Path

import pytest

from ..conftest import Run
from .conftest import checkpoint_of, command
from .launcher import Launcher

STEPS = 4


@pytest.fixture(scope="module")
def saved(launcher: Launcher, frozen_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint after each of its steps."""
    run = tmp_path_factory.mktemp("care") / "run"
    options = ("--steps", STEPS, "--save-steps", 1, "--keep", 9, "--global-batch", 2, "--workers", 0)
    ended = launcher.run(*command(frozen_set, run, *options))
    assert ended.codes == [0, 0], ended.said
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


def flip_bit(run: Path, step: int) -> None:
    path = next(checkpoint_of(run, step).glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def steps_in(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").iterdir())


def states_of(output: str) -> dict[int, str]:
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()[1:]]
    return {int(line[0]): line[-1] for line in lines}


def test_checkpoints_are_listed_and_a_flipped_bit_is_found(run: Path, train_cli: Run) -> None:
    flip_bit(run, 2)
    (checkpoint_of(run, 3) / "checkpoint.json").unlink()
    listed = train_cli("checkpoint", "ls", run)
    assert listed.returncode == 0
    states = states_of(listed.stdout)
    assert [*states] == [4, 3, 2, 1]
    assert states[4] == states[2] == states[1] == "complete"
    assert "checkpoint.json" in states[3] or "incomplete" in states[3]
    verified = train_cli("checkpoint", "verify", run)
    assert verified.returncode == 1
    assert "2 of its checkpoints are incomplete or damaged" in verified.stderr
    states = states_of(verified.stdout)
    assert states[4] == states[1] == "intact"
    assert "is damaged (its SHA-256 is not the recorded one)" in states[2]


@pytest.mark.parametrize(
    ("damaged", "keep", "left"),
    [((), 2, [3, 4]), ((4,), 1, [3]), ((3, 4), 1, [2]), ((3,), 2, [2, 4]), ((), 9, [1, 2, 3, 4])],
)
def test_pruning_keeps_the_latest_intact_ones(
    damaged: tuple[int, ...], keep: int, left: list[int], run: Path, train_cli: Run
) -> None:
    for step in damaged:
        flip_bit(run, step)
    pruned = train_cli("checkpoint", "prune", run, "--keep", keep)
    assert pruned.returncode == 0, pruned.stderr
    assert steps_in(run) == left
    assert f"kept: {', '.join(map(str, reversed(left)))}\n" in pruned.stdout


def test_the_best_one_is_kept(run: Path, train_cli: Run) -> None:
    (run / "best.json").write_text('{"figure":"all","value":1.0,"checkpoint":"checkpoints/step-00000002"}\n')
    assert train_cli("checkpoint", "prune", run, "--keep", 1).returncode == 0
    assert steps_in(run) == [2, 4]


def test_nothing_is_deleted_if_none_is_intact(run: Path, train_cli: Run) -> None:
    for step in range(1, STEPS + 1):
        flip_bit(run, step)
    pruned = train_cli("checkpoint", "prune", run, "--keep", 1)
    assert pruned.returncode == 1
    assert "nothing was deleted" in pruned.stderr
    assert steps_in(run) == [1, 2, 3, 4]


def test_other_folders_are_refused(tmp_path: Path, train_cli: Run) -> None:
    for verb in (("ls",), ("verify",), ("prune", "--keep", 1)):
        refused = train_cli("checkpoint", verb[0], tmp_path, *verb[1:])
        assert refused.returncode == 2
        assert "give the --output-dir of a run" in refused.stderr
    assert list(tmp_path.iterdir()) == []
