"""A process in which nothing moves ends, and shows who it was, what it was doing, and where."""

import subprocess
import sys

import pytest

from ...waiting import TIMEOUT_S

HANGING = """
import ctypes, time
from griffon_train.distributed import watchdog
watchdog.MARGIN_S = 0.5
dog = watchdog.Watchdog(3, 1.0)
dog.now("writing a checkpoint after 7 steps")
def hang():
    {hang}
hang()
"""


def ended(hang: str) -> subprocess.CompletedProcess[str]:
    script = HANGING.format(hang=hang)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=TIMEOUT_S)


@pytest.mark.parametrize("hang", ["time.sleep(10**6)", "while True: pass"])
def test_a_hang_is_reported_with_rank_phase_limit_and_remedy(hang: str) -> None:
    process = ended(hang)
    assert (process.returncode, process.stdout) == (1, "")
    message, _, stacks = process.stderr.partition("\n")
    assert message.startswith("error: rank 3: no progress for 1 s while writing a checkpoint after 7 steps; ")
    assert "Rerun the same command" in message and "--stall-s" in message
    assert " in hang\n" in stacks


def test_a_library_that_keeps_python_from_running_is_ended_too() -> None:
    """It holds the interpreter's lock, so that faulthandler alone can act."""
    process = ended("ctypes.PyDLL(None).sleep(10**6)")
    assert process.returncode == 1
    assert process.stderr.startswith("Timeout (")
    assert " in hang\n" in process.stderr
