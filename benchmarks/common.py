"""What the benchmarks share: a description of the machine, a folder to write into, and running commands."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from griffon_shards.support.tables import size


def machine(folder: Path) -> str:
    """A line that describes the machine."""
    cpu = next(
        (line.partition(":")[2].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    mounts = [line.split()[1:3] for line in lines("/proc/mounts")]
    inside = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    _, file_system = max(inside, key=lambda mount: len(mount[0]))
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{cpu}, {os.cpu_count()} cores, {size(memory_bytes)} memory, {file_system}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f} before the start"
    )


@contextmanager
def scratch(parent: Path | None, keep: bool) -> Iterator[Path]:
    """A folder of our own on the disk asked for: below `parent`, or where temporary files go if that is this disk."""
    if parent is None:
        temporary = Path(tempfile.gettempdir())
        parent = temporary if temporary.stat().st_dev == Path.cwd().stat().st_dev else Path.cwd()
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="griffon-bench-", dir=parent))
    try:
        yield folder
    finally:
        if keep:
            click.echo(f"kept {folder}", err=True)
        else:
            shutil.rmtree(folder)


def call(command: Sequence[object]) -> bytes:
    """Run a command and give what it prints; the benchmark ends if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        raise click.ClickException(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{said}")
    return done.stdout


def lines(path: str) -> list[str]:
    """The lines of a file of the system's."""
    return Path(path).read_text(encoding="utf-8").splitlines()


def word(met: bool) -> str:
    """Of a target."""
    return "PASS" if met else "FAIL"
