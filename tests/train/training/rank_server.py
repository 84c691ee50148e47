"""A program that has imported everything once: it takes requests, a line of JSON each, and forks ranks."""

import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

from griffon_shards.support.processes import end_with_parent

_IMPORTED = (
    *("deepspeed", "deepspeed.runtime.zero.muon.original_muon"),
    "griffon_train.training.loop",
)
"""Once, for all ranks."""


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # in a session of its own, Ctrl-C does not reach it
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            answer: Any = _start(request["start"], request["logs"], request["environment"])
        else:
            answer = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in request["wait"]]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _start(arguments: list[str], logs: list[str], environment: dict[str, str]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank, log in enumerate(logs):
        pid = os.fork()
        if pid == 0:
            os.environ.update(environment)
            _rank(arguments, rank, len(logs), port, log)
        os.setpgid(pid, pid)  # as torchrun has it
        pids.append(pid)
    return pids


def _rank(arguments: list[str], rank: int, world_size: int, port: int, log: str) -> None:
    end_with_parent()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    environment = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in environment.items()})
    from griffon_train.cli.main import main

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
