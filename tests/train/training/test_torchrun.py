"""Real launchers, as on a cluster: torchrun, one or two of it, and DeepSpeed's. Each process imports torch anew."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ...waiting import TIMEOUT_S
from ..damage import left_over
from .conftest import command, differences, steps_told
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
        """Exit status, and what was said."""
        code = self.process.wait(TIMEOUT_S)
        return code, self.log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """At once, with all ranks."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid in left_over(self.process.pid, patience_s=0):  # torchrun puts ranks into groups of their own
            os.kill(pid, signal.SIGKILL)
        assert not left_over(self.process.pid)


@contextmanager
def started(log: Path, *line: object) -> Iterator[Started]:
    """At the end nothing of it is left."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(each) for each in line], stdout=file, stderr=file, env=ENVIRONMENT, start_new_session=True
        )
    try:
        yield Started(process=process, log=log)
    finally:
        for pid in left_over(process.pid, patience_s=0):
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
        return [str(each) for each in command(frozen_set, run, *options)]

    return of


@pytest.fixture(scope="module")
def unbroken(launcher: Launcher, arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What everything else is to equal, bit for bit."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    ended = launcher.run(*arguments(run))
    assert ended.codes == [0, 0], ended.said
    return run


def test_torchrun_killed_and_started_again(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    run = tmp_path / "run"
    line = (*torchrun(2, "--master_port", free_port()), *arguments(run))
    with started(tmp_path / "first.log", *line) as first:
        end = time.monotonic() + TIMEOUT_S
        while steps_told(run) < 3:
            assert first.process.poll() is None and time.monotonic() < end, first.ended()
            time.sleep(0.005)
        first.kill()
    assert steps_told(run) < STEPS
    assert not (run / "model").exists()
    with started(tmp_path / "second.log", *line) as second:
        code, said = second.ended()
    assert code == 0, said
    assert said.count("going on with step ") == 1, "one rank speaks for all"
    assert differences(run, unbroken) == []


def test_two_machines_under_torchrun(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    """Two agents, of which each starts one rank, find each other by rendezvous."""
    run, port = tmp_path / "run", free_port()
    meeting = ("--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "test")
    line = (*torchrun(1, *meeting), *arguments(run))
    with started(tmp_path / "0.log", *line) as one, started(tmp_path / "1.log", *line) as other:
        codes, said = zip(*(agent.ended() for agent in (one, other)), strict=True)
    assert codes == (0, 0), said
    assert sum(each.count(f"step {STEPS}/{STEPS}  ") for each in said) == 1
    assert differences(run, unbroken) == []


def test_two_machines_under_deepspeed(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    """`--hostfile` without ssh: its launcher is started on each machine, and told which one it is."""
    run, hosts = tmp_path / "run", tmp_path / "hostfile.txt"
    hosts.write_text("machine-a slots=1\nmachine-b slots=1\n")
    options = ("--hostfile", hosts, "--no_ssh", "--master_addr", "127.0.0.1", "--master_port", free_port())
    lines = [
        (BIN / "deepspeed", *options, "--node_rank", rank, "--module", "griffon_train", *arguments(run))
        for rank in range(2)
    ]
    with started(tmp_path / "0.log", *lines[0]) as one, started(tmp_path / "1.log", *lines[1]) as other:
        codes, said = zip(*(agent.ended() for agent in (one, other)), strict=True)
    assert codes == (0, 0), said
    assert "dist_world_size=2" in said[0]
    assert differences(run, unbroken) == []


def test_deepspeed_on_one_machine(unbroken: Path, arguments: Arguments, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--num_gpus", 2, "--master_port", free_port(), "--module", "griffon_train")
    with started(tmp_path / "log", BIN / "deepspeed", *options, *arguments(run)) as both:
        code, said = both.ended()
    assert code == 0, said
    assert said.count(f"step {STEPS}/{STEPS}  ") == 1
    assert differences(run, unbroken) == []
