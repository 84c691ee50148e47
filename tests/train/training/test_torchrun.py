"""Real launchers, as on a cluster: one or two torchruns, and DeepSpeed's. Each process imports torch again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from griffon_shards.frozen_set import open_set
from griffon_train.data.plan import Plan

from ...waiting import TIMEOUT_S
from ..damage import children_of, left_over, shard_of, stall
from .conftest import checkpoint_of, command, differences, steps_told
from .launcher import Launcher

STEPS = 8
ENVIRONMENT = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
BIN = Path(sys.executable).parent

Arguments = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Started:
    """A launcher, in a session of its own with all that it starts."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> tuple[int, str]:
        """Return the exit code and the output."""
        code = self.process.wait(TIMEOUT_S)
        return code, self.log.read_text(encoding="utf-8")

    def ranks(self) -> list[int]:
        """Processes; torchrun puts each into a session of its own."""
        return children_of(self.process.pid)

    def wait_for_steps(self, run: Path, steps: float) -> None:
        """Wait until a running run has logged so many steps."""
        end = time.monotonic() + TIMEOUT_S
        while steps_told(run) < steps:
            assert self.process.poll() is None and time.monotonic() < end, self.ended()
            time.sleep(0.005)

    def kill(self) -> None:
        """At once; the ranks do not outlive it."""
        ranks = self.ranks()
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + TIMEOUT_S
        while any(Path(f"/proc/{rank}").exists() for rank in ranks):
            assert time.monotonic() < end, ranks
            time.sleep(0.01)
        assert not left_over(self.process.pid)


@contextmanager
def started(log: Path, *line: object) -> Iterator[Started]:
    """At the end nothing of it is left."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(item) for item in line], stdout=file, stderr=file, env=ENVIRONMENT, start_new_session=True
        )
    try:
        yield Started(process=process, log=log)
    finally:
        for pid in (*children_of(process.pid), *left_over(process.pid, patience_s=0)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def torchrun(ranks: int, *options: object) -> Sequence[object]:
    return (BIN / "torchrun", "--nproc_per_node", ranks, *options, "-m", "griffon_train")


@pytest.fixture(scope="module")
def arguments(frozen_set: Path) -> Arguments:
    def of(run: Path) -> list[str]:
        options = ("--steps", STEPS, "--global-batch", 4, "--micro-batch", 2, "--save-steps", 2, "--workers", 1)
        return [str(item) for item in command(frozen_set, run, *options)]

    return of


@pytest.fixture(scope="module")
def unbroken(launcher: Launcher, arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run that all others must equal, bit for bit."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    ended = launcher.run(*arguments(run))
    assert ended.codes == [0, 0], ended.said
    return run


def test_torchrun_killed_and_started_again(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = (*torchrun(2, "--master_port", free_port()), *arguments(run))
    with started(tmp_path / "first.log", *line) as first:
        first.wait_for_steps(run, 3)
        first.kill()
    assert steps_told(run) < STEPS
    assert not (run / "model").exists()
    with started(tmp_path / "second.log", *line) as second:
        code, output = second.ended()
    assert code == 0, output
    assert output.count("resuming at step ") == 1, "one rank speaks for all"
    assert differences(run, unbroken) == []


def test_torchrun_is_asked_to_stop_while_ranks_wait_for_data(copy_of_set: Path, tmp_path: Path) -> None:
    """It hands the signal on to all processes of its ranks. They save, and end before it kills them."""
    run = tmp_path / "run"
    plan = Plan([open_set(copy_of_set)], seed=0, global_batch=4)
    first = {shard_of(copy_of_set, row) for step in range(3) for row in plan.step(step).rows.tolist()}
    later = (row for step in range(3, 100) for row in plan.step(step).rows.tolist())
    stall(copy_of_set, next(row for row in later if shard_of(copy_of_set, row) not in first))
    options = ("--steps", 100, "--global-batch", 4, "--micro-batch", 2, "--workers", 2)
    line = (*torchrun(2, "--master_port", free_port()), *command(copy_of_set, run, *options))
    with started(tmp_path / "log", *line) as both:
        both.wait_for_steps(run, 1)
        reported = 0
        while steps_told(run) > reported:
            reported = steps_told(run)
            time.sleep(2)
        ranks = both.ranks()
        both.process.send_signal(signal.SIGTERM)
        _, output = both.ended()
    assert checkpoint_of(run, reported).is_dir(), output
    assert f"stopped by SIGTERM after step {reported}/100; saved" in output
    assert "forcefully exiting" not in output
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def test_torchrun_restarts_killed_ranks(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    """Twice, with nothing set in its environment; each rank is killed once."""
    run = tmp_path / "run"
    line = (*torchrun(2, "--master_port", free_port(), "--max-restarts", 2), *arguments(run))
    with started(tmp_path / "log", *line) as both:
        killed: set[int] = set()
        for i in range(2):
            both.wait_for_steps(run, 3 + 2 * i)
            while not (ranks := [pid for pid in both.ranks() if pid not in killed]):
                time.sleep(0.005)
            os.kill(ranks[i], signal.SIGKILL)
            killed.update(ranks)
            while set(both.ranks()) & killed:
                time.sleep(0.005)
        code, output = both.ended()
    assert code == 0, output
    assert output.count("resuming at step ") == 2
    assert "another rank has ended" in output
    assert differences(run, unbroken) == []


def test_two_machines_under_torchrun(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    """Two agents, of which each starts one rank, find each other by rendezvous."""
    run, port = tmp_path / "run", free_port()
    meeting = ("--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "test")
    line = (*torchrun(1, *meeting), *arguments(run))
    with started(tmp_path / "0.log", *line) as one, started(tmp_path / "1.log", *line) as other:
        codes, output = zip(*(agent.ended() for agent in (one, other)), strict=True)
    assert codes == (0, 0), output
    assert sum(item.count(f"step {STEPS}/{STEPS}  ") for item in output) == 1
    assert differences(run, unbroken) == []


def test_two_machines_under_deepspeed(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    """`--hostfile` without ssh: its launcher is started on each machine with the machine's number."""
    run, hosts = tmp_path / "run", tmp_path / "hostfile.txt"
    hosts.write_text("machine-a slots=1\nmachine-b slots=1\n")
    options = ("--hostfile", hosts, "--no_ssh", "--master_addr", "127.0.0.1", "--master_port", free_port())
    lines = [
        (BIN / "deepspeed", *options, "--node_rank", rank, "--module", "griffon_train", *arguments(run))
        for rank in range(2)
    ]
    with started(tmp_path / "0.log", *lines[0]) as one, started(tmp_path / "1.log", *lines[1]) as other:
        codes, output = zip(*(agent.ended() for agent in (one, other)), strict=True)
    assert codes == (0, 0), output
    assert "dist_world_size=2" in output[0]
    assert differences(run, unbroken) == []


def test_deepspeed_on_one_machine(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--num_gpus", 2, "--master_port", free_port(), "--module", "griffon_train")
    with started(tmp_path / "log", BIN / "deepspeed", *options, *arguments(run)) as both:
        code, output = both.ended()
    assert code == 0, output
    assert output.count(f"step {STEPS}/{STEPS}  ") == 1
    assert differences(run, unbroken) == []
