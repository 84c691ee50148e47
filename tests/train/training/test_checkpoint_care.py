"""The checkpoints that `griffon-train checkpoint` lists, verifies and deletes, and those that a run itself deletes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.distributed.signals import Requests
from griffon_train.distributed.watchdog import Watchdog
from griffon_train.training.checkpoint_folders import Keep, prune, size_of

from ..conftest import Run
from .conftest import checkpoint_of, command
from .launcher import Launcher

pytestmark = pytest.mark.xdist_group("checkpoint_care")  # one process makes the fixtures, which take long

STEPS = 4
HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


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
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def truncate(run: Path, step: int) -> None:
    path = next(checkpoint_of(run, step).glob("*.safetensors"))
    os.truncate(path, path.stat().st_size - 1)


def copy(run: Path, step: int) -> None:
    """Replace a checkpoint by a copy, whose files are newer."""
    moved = checkpoint_of(run, step).rename(run / "moved")
    shutil.copytree(moved, checkpoint_of(run, step), copy_function=shutil.copyfile)
    shutil.rmtree(moved)


@pytest.fixture
def alone() -> Iterator[ProcessGroup]:
    """A process that trains alone."""
    watchdog = Watchdog(0, 600)
    yield ProcessGroup(rank=0, world_size=1, device=torch.device("cpu"), watchdog=watchdog, requests=Requests())
    watchdog.close()


def states_of(output: str) -> dict[int, str]:
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()[1:-1]]
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


def test_the_list_ends_with_the_number_and_the_size_of_all(run: Path, train_cli: Run) -> None:
    total_bytes = sum(size_of(checkpoint_of(run, step)) for step in steps_in(run))
    listed = train_cli("checkpoint", "ls", run).stdout.splitlines()
    assert len(listed) == 1 + STEPS + 1
    assert listed[-1] == f"total: 4 checkpoints, {total_bytes / 1e6:.1f} MB"
    for step in (1, 2, 3):
        shutil.rmtree(checkpoint_of(run, step))
    assert train_cli("checkpoint", "ls", run).stdout.splitlines()[-1].startswith("total: 1 checkpoint, ")
    shutil.rmtree(checkpoint_of(run, 4))
    assert train_cli("checkpoint", "ls", run).stdout.splitlines()[-1] == "total: 0 checkpoints, 0 B"


@pytest.mark.parametrize(
    ("checkpoints", "keep", "best", "damaged", "left"),
    [
        (2.5, (), None, (), [3, 4]),
        (0.5, (), None, (), [4]),
        (3.5, ("--keep", 1), None, (), [4]),
        (1.5, ("--keep", 3), None, (), [4]),
        (2.5, (), 1, (), [1, 4]),
        (0.5, (), 2, (), [2, 4]),
        (2.5, (), None, (4, 2), [1, 3]),
        (9, (), None, (2,), [1, 3, 4]),
    ],
)
def test_pruning_limits_the_total_size(
    checkpoints: float,
    keep: tuple[object, ...],
    best: int | None,
    damaged: tuple[int, ...],
    left: list[int],
    run: Path,
    train_cli: Run,
) -> None:
    """As in a run: the latest intact one and the best one stay, whatever they take."""
    if best is not None:
        (run / "best.json").write_text(f'{{"figure":"all","checkpoint":"checkpoints/step-{best:08d}"}}')
    for step in damaged:
        flip_bit(run, step)
    limit_gb = checkpoints * size_of(checkpoint_of(run, STEPS)) / 1e9
    pruned = train_cli("checkpoint", "prune", run, "--save-total-gb", limit_gb, *keep)
    assert pruned.returncode == 0, pruned.stderr
    assert steps_in(run) == left
    assert f"kept: {', '.join(map(str, reversed(left)))}\n" in pruned.stdout


def test_pruning_asks_which_to_keep(run: Path, train_cli: Run) -> None:
    refused = train_cli("checkpoint", "prune", run)
    assert refused.returncode == 2
    assert "give --keep N, --save-total-gb N, or both" in refused.stderr
    assert steps_in(run) == [1, 2, 3, 4]


def test_a_run_that_is_running_is_not_pruned(run: Path, train_cli: Run) -> None:
    """It is refused before its folder is read: the run may be changing what is there."""
    (run / "best.json").write_text("{")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, run / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = train_cli("checkpoint", "prune", run, "--keep", 1)
        holder.communicate(b"\n")
    assert refused.returncode == 2
    assert f"{run}: a process is training in this folder" in refused.stderr
    assert steps_in(run) == [1, 2, 3, 4]
    assert "damaged" in train_cli("checkpoint", "prune", run, "--keep", 1).stderr


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


Damage = Callable[[Path, int], None]


@pytest.mark.parametrize(
    ("damages", "keep", "left"),
    [
        ({}, 2, [3, 4]),
        ({4: flip_bit}, 1, [3, 4]),
        ({4: truncate}, 1, [3, 4]),
        ({4: flip_bit, 3: flip_bit}, 1, [2, 4]),
        ({3: flip_bit}, 2, [2, 4]),
        ({3: copy}, 2, [3, 4]),
    ],
)
def test_a_run_deletes_no_intact_checkpoint_for_a_damaged_one(
    damages: Mapping[int, Damage],
    keep: int,
    left: list[int],
    run: Path,
    alone: ProcessGroup,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for step, damage in damages.items():
        damage(run, step)
    prune(run, STEPS, Keep(count=keep), alone)
    assert steps_in(run) == left
    warnings = [line for line in caplog.messages if "it does not count among the checkpoints to keep" in line]
    assert len(warnings) == len({step for step in damages if damages[step] != copy})


@pytest.mark.parametrize(
    ("checkpoints", "best", "damages", "left"),
    [
        (2.5, None, {}, [3, 4]),
        (0.5, None, {}, [4]),
        (2.5, 1, {}, [1, 4]),
        (0.5, 2, {}, [2, 4]),
        (3.5, 4, {}, [2, 3, 4]),
        (0.5, None, {4: flip_bit}, [3, 4]),
        (9, None, {}, [1, 2, 3, 4]),
    ],
)
def test_the_total_size_is_limited_but_for_the_latest_and_the_best(
    checkpoints: float,
    best: int | None,
    damages: Mapping[int, Damage],
    left: list[int],
    run: Path,
    alone: ProcessGroup,
) -> None:
    for step, damage in damages.items():
        damage(run, step)
    total_bytes = checkpoints * size_of(checkpoint_of(run, STEPS))
    prune(run, STEPS, Keep(count=STEPS, total_bytes=total_bytes, best=best), alone)
    assert steps_in(run) == left


def test_damage_while_a_run_trains(launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """The latest checkpoint is damaged behind its back: it is deleted next time, and not the one before."""
    run = tmp_path / "run"
    arguments = command(frozen_set, run, "--steps", 10_000, "--save-steps", 10_000, "--keep", 2, "--global-batch", 2)
    running = launcher.start(arguments, 2)
    saved: list[int] = []
    for number in range(3):
        if number == 2:
            flip_bit(run, saved[-1])
        running.wait_until(lambda: (run / "lock").exists())
        (run / "save-now").touch()
        running.wait_until(lambda: steps_in(run)[-1:] > saved[-1:])
        saved.append(steps_in(run)[-1])
    running.wait_until(lambda: len(steps_in(run)) == 2)
    assert steps_in(run) == [saved[0], saved[2]]
    running.signal(signal.SIGKILL)
    running.wait()


def test_a_limit_is_applied_and_may_change(saved: Path, launcher: Launcher, frozen_set: Path, tmp_path: Path) -> None:
    """A checkpoint takes 0.9 MB."""
    run = tmp_path / "run"
    options = ("--save-steps", 1, "--keep", 9, "--global-batch", 2, "--workers", 0)
    ended = launcher.run(*command(frozen_set, run, "--steps", 2, *options, "--save-total-gb", 5e-4), world_size=1)
    assert ended.codes == [0], ended.said
    assert "--save-total-gb 0.0005: the latest one is always kept, which takes about 920.1 kB" in ended.said[0]
    assert re.search(rf"checkpoint {checkpoint_of(run, 2)}: 935\.\d kB in \d+\.\d s \(\d.*B/s\)", ended.said[0])
    assert steps_in(run) == [2]

    run = shutil.copytree(saved, tmp_path / "longer")
    ended = launcher.run(*command(frozen_set, run, "--steps", STEPS, *options, "--save-total-gb", 0.0023))
    assert ended.codes == [0, 0], ended.said
    assert steps_in(run) == [3, 4]
