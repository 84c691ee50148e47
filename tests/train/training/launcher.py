"""Ranks in processes of their own, started in a fraction of a second: forked from one that has imported everything.

torchrun does the same with fresh processes, which take ten seconds each to import torch; it has tests, too.
Run as a program it is that one process: it takes requests, a line of JSON each, and forks the ranks.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_IMPORTED = (
    *("deepspeed", "deepspeed.runtime.zero.muon.original_muon", "torch.utils.tensorboard"),
    "griffon_train.training.loop",
)
"""Once, for all ranks."""


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
            [sys.executable, __file__],
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

    def start(self, arguments: Sequence[object], world_size: int) -> "Running":
        """Start ranks; they run while you do something else."""
        self._count += 1
        logs = [str(self._folder / f"{self._count}-{rank}.log") for rank in range(world_size)]
        pids = self._ask({"start": [str(each) for each in arguments], "logs": logs})
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

    def wait_until(self, holds: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait for something to happen while they run."""
        end = time.monotonic() + timeout_s
        while not holds():
            over = time.monotonic() > end or all(map(_has_ended, self.pids))
            assert not over or holds(), "it did not happen: " + "".join(self.said())
            time.sleep(0.002)

    def said(self) -> list[str]:
        """What each rank has written to stderr."""
        return [log.read_text(encoding="utf-8") if log.exists() else "" for log in self._logs]

    def wait(self, timeout_s: float = 120) -> Ended:
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


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: Any = _start(request["start"], request["logs"])
        else:
            answer = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in request["wait"]]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(arguments: list[str], logs: list[str]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank, log in enumerate(logs):
        pid = os.fork()
        if pid == 0:
            _rank(arguments, rank, len(logs), port, log)
        pids.append(pid)
    return pids


def _rank(arguments: list[str], rank: int, world_size: int, port: int, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    place = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in place.items()})
    from griffon_train.cli import main

    code = 1
    try:
        main(arguments, prog_name="griffon-train")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is belongs into the log
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
