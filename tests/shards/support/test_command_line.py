"""How commands end that could not do what they were asked for."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("command", ["info", "ls", "cat", "verify", "show"])
def test_without_anything_to_resume_only_the_interruption_is_reported(
    copy_of_set: Path, shards_cli: Cli, command: str
) -> None:
    lock = copy_of_set / "griffon.lock.json"
    lock.unlink()
    os.mkfifo(lock)  # the command waits for it

    def interrupt() -> None:
        with lock.open("wb"):
            signal.pthread_kill(main, signal.SIGTERM)  # which is Ctrl-C to us
            ended.wait(60)

    main, ended = threading.get_ident(), threading.Event()
    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    result = shards_cli(command, copy_of_set, *["a key"] * (command == "show"))
    ended.set()
    interrupting.join()
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "error: interrupted\n")


def test_a_full_disk_is_reported_with_the_remedy(frozen_set: Path) -> None:
    command = [sys.executable, "-m", "griffon_shards", "cat", str(frozen_set)]
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (1, "error: [Errno 28] No space left on device; free some space\n")
