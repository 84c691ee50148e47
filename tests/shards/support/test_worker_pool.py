"""Worker processes: they end with their parent, however it ends, and a killed one is an error in one line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from griffon_shards.support.errors import DataError
from griffon_shards.support.worker_pool import LocalPool

from ...waiting import TIMEOUT_S

BUSY = {
    "sleeping": "import time; time.sleep(10**6)",
    "holding the GIL": "sum(iter(int, 1))",  # a loop in C that never ends
}
PROGRAM = """
import os, sys
from pathlib import Path
from griffon_shards.support.worker_pool import LocalPool

def work(folder):
    Path(folder, str(os.getpid())).touch()
    {busy}

if __name__ == "__main__":
    with LocalPool(2, "{start_method}") as pool:
        list(pool.run(work, [sys.argv[1]] * 2))
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", BUSY)
def test_workers_end_with_a_killed_parent(tmp_path: Path, kind: str, start_method: str) -> None:
    program, pids = tmp_path / "program.py", tmp_path / "pids"
    program.write_text(PROGRAM.format(busy=BUSY[kind], start_method=start_method))
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, program, pids])
    wait_until(lambda: len(list(pids.iterdir())) == 2)
    workers = [int(path.name) for path in pids.iterdir()]
    assert all(map(is_running, workers))
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(map(is_running, workers)))


def kill_itself(_job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error() -> None:
    with (
        pytest.raises(DataError, match=r"^a worker process was killed, possibly for lack of memory; rerun "),
        LocalPool(1) as pool,
    ):
        list(pool.run(kill_itself, [0]))
