"""`griffon-prep build --engine ray` on a running cluster beside the local pool, with as many workers.

The two are run in turn, so that other load of the machine falls on both alike. When a clock starts, the page cache is
warm, and whatever was written before is on disk.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
from common import call, machine, scratch, word

from griffon_shards.lock import read_lock
from griffon_shards.support.tables import table

_HERE = Path(__file__).resolve().parent
_MOST_OF_LOCAL = 1.25
_ADDRESS = "127.0.0.1:6389"


@click.command(context_settings={"show_default": True})
@click.option("--images", type=click.IntRange(1), default=20_000, help="Images of about 80 kB.")
@click.option("--runs", type=click.IntRange(1), default=3, help="Builds of each; medians count.")
@click.option("--workers", type=click.IntRange(1), default=2, help="Workers of each.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the images there.")
def main(images: int, runs: int, workers: int, folder: Path | None, keep: bool) -> None:
    """Measure what Ray costs beside the local pool."""
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        call([sys.executable, _HERE / "bench_data.py", "pictures", own, "--images", images])
        (own / "det.txt").write_text("DET & det.jsonl & pictures\n", encoding="utf-8")
        options: dict[str, list[object]] = {
            "local": ["--workers", workers],
            "ray": ["--engine", "ray", "--ray-address", _ADDRESS],
        }
        seconds: dict[str, list[float]] = {engine: [] for engine in options}
        digests = set()
        with _ray(workers):
            for _ in range(runs):
                for engine, more in options.items():
                    taken_s, digest = _build(own, more)
                    seconds[engine].append(taken_s)
                    digests.add(digest)
                    click.echo(f"{engine}: {taken_s:.2f} s", err=True)
        if len(digests) != 1:
            raise click.ClickException(f"the sets differ: {digests}")
        rows = [
            (engine, f"{median(all_s):.2f}", f"{min(all_s):.2f}-{max(all_s):.2f}", round(images / median(all_s)))
            for engine, all_s in seconds.items()
        ]
        click.echo(f"{images:,} images, {workers} workers; medians of {runs} builds\n")
        click.echo(table(("engine", "median s", "min-max s", "samples/s"), rows))
        ratio = median(seconds["ray"]) / median(seconds["local"])
        verdict = word(ratio <= _MOST_OF_LOCAL)
        click.echo(f"\nwall time of Ray: {ratio:.3f} x, wanted at most {_MOST_OF_LOCAL} x: {verdict}")


def _build(folder: Path, options: list[object]) -> tuple[float, str]:
    """Seconds that a build takes, and its digest."""
    for path in sorted((folder / "pictures").rglob("*.jpg")):
        path.read_bytes()
    os.sync()
    out = folder / "out"
    began = time.perf_counter()
    inputs = ["--manifest", folder / "det.txt", "--data-root", folder, "--out", out]
    call([sys.executable, "-m", "griffon_prep", "build", *inputs, *options])
    taken_s = time.perf_counter() - began
    digest = read_lock(out).digest
    shutil.rmtree(out)
    return taken_s, digest


@contextmanager
def _ray(workers: int) -> Iterator[None]:
    """A running cluster of one node. Its token keeps others out."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    ray = Path(sys.executable).with_name("ray")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as own:
        host, _, port = _ADDRESS.partition(":")
        node = ["--head", "--block", "--node-ip-address", host, "--port", port, "--num-cpus", str(workers)]
        log = Path(own) / "log"
        with log.open("wb") as file:
            head = subprocess.Popen(
                [ray, "start", *node, "--include-dashboard", "false", "--temp-dir", own], stdout=file, stderr=file
            )
        try:
            while b"Ray runtime started" not in log.read_bytes():
                if head.poll() is not None:
                    raise click.ClickException(log.read_text())
                time.sleep(0.1)
            yield
        finally:
            head.terminate()
            head.wait()


if __name__ == "__main__":
    main()
