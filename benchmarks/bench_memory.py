"""How much memory a command and the processes that it starts take at most, from Linux's `/proc`.

Run by `bench_prep.py`; prints one line of JSON: a list of processes with their role and peaks in bytes.
"""

import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import orjson

_EVERY_S = 0.05
_KB = 1024


@dataclass(slots=True, kw_only=True)
class Peak:
    """The most that one process was seen with.

    Attributes:
        role: `parent`, or `worker` for every process below it.
        resident_bytes: all pages in memory, those of shared libraries and mapped files too (VmHWM, kept by the kernel).
        private_bytes: pages that are this process's alone (USS), sampled, so that a short peak may be missed.
    """

    role: str
    resident_bytes: int = 0
    private_bytes: int = 0


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def main(command: tuple[str, ...]) -> None:
    """Run COMMAND, its output to standard error, and print the peaks of its processes."""
    peaks: dict[int, Peak] = {}
    with subprocess.Popen(command, stdout=sys.stderr) as running:
        while running.poll() is None:
            for pid in _tree(running.pid):
                role = "parent" if pid == running.pid else "worker"
                _update(peaks.setdefault(pid, Peak(role=role)), pid)
            time.sleep(_EVERY_S)
    click.echo(orjson.dumps([asdict(peak) for peak in peaks.values()]).decode())
    sys.exit(running.returncode)


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for threads in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(threads).split():
            found += _tree(int(child))
    return found


def _update(peak: Peak, pid: int) -> None:
    status = _kilobytes(Path(f"/proc/{pid}/status"))
    rollup = _kilobytes(Path(f"/proc/{pid}/smaps_rollup"))
    private = rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0)
    peak.resident_bytes = max(peak.resident_bytes, status.get("VmHWM", 0) * _KB)
    peak.private_bytes = max(peak.private_bytes, private * _KB)


def _kilobytes(path: Path) -> dict[str, int]:
    """The fields of a file in `/proc` that are given in kB."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}


def _read(path: Path) -> str:
    """The text of a file in `/proc`, empty where the process has ended."""
    try:
        return path.read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


if __name__ == "__main__":
    main()
