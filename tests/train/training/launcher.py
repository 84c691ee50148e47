"""Ranks in processes of their own, started in a fraction of a second: `rank_server.py` forks them.

torchrun does the same with fresh processes, which take ten seconds each to import torch; it has tests, too.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...waiting import TIMEOUT_S

_SERVER = Path(__file__).with_name("rank_server.py")


@dataclass(frozen=True)
class Ended:
    """Ranks that have ended: their exit statuses, and what each wrote to stderr."""

    codes: list[int]
    said: list[str]


class Launcher:
    """Starts `griffon-train` with some arguments on some ranks."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # with all ranks, so that none outlives the tests
        )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def start(self, arguments: Sequence[object], world_size: int, **environment: str) -> "Running":
        """Start ranks, each in a process group of its own; they run while you do something else."""
        self._count += 1
        logs = [str(self._folder / f"{self._count}-{rank}.log") for rank in range(world_size)]
        pids = self._ask({"start": [str(argument) for argument in arguments], "logs": logs, "environment": environment})
        return Running(self._ask, pids, [Path(log) for log in logs])

    def run(self, *arguments: object, world_size: int = 2) -> Ended:
        """Start ranks and wait for them."""
        return self.start(arguments, world_size).wait()

    def _ask(self, request: Mapping[str, Any]) -> Any:  # noqa: ANN401
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Running:
    """Ranks at work."""

    def __init__(self, ask: Callable[[Mapping[str, Any]], Any], pids: list[int], logs: list[Path]) -> None:
        self._ask, self.pids, self._logs = ask, pids, logs

    def signal(self, number: int, rank: int | None = None) -> None:
        """Send a signal to all ranks, or to one."""
        for pid in self.pids if rank is None else [self.pids[rank]]:
            os.kill(pid, number)

    def signal_groups(self, number: int) -> None:
        """Send a signal to all ranks and all their reading processes, as torchrun and Slurm do."""
        for pid in self.pids:
            os.killpg(pid, number)

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait for something to happen while they run."""
        end = time.monotonic() + timeout_s
        while not holds():
            over = time.monotonic() > end or all(map(_has_ended, self.pids))
            assert not over or holds(), "it did not happen: " + "".join(self.said())
            time.sleep(0.002)

    def said(self) -> list[str]:
        """Return what each rank has written to stderr."""
        return [log.read_text(encoding="utf-8") if log.exists() else "" for log in self._logs]

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Wait for all to end; those that do not are killed, and the test fails."""
        end = time.monotonic() + timeout_s
        while late := [pid for pid in self.pids if not _has_ended(pid)]:
            if time.monotonic() > end:
                for pid in late:
                    os.kill(pid, signal.SIGKILL)
                self._ask({"wait": self.pids})
                raise AssertionError(f"{len(late)} ranks did not end in {timeout_s} s: " + "".join(self.said()))
            time.sleep(0.01)
        return Ended(codes=self._ask({"wait": self.pids}), said=self.said())


def _has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
