"""`griffon-shards view` of a set of a million samples: `make bench-view`.

Times the sidecar, a warm start, filters, searches and orders one at a time, and 200 requests at once; and the server's
memory. Client and server share the machine.
"""

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import click
from bench_view_data import make_set
from common import lines, machine, scratch, word

from griffon_shards.frozen_set import open_set
from griffon_shards.support.tables import table

_MAX_BUILD_S, _MAX_START_S, _MAX_QUERY_S, _MAX_RESIDENT, _MAX_AT_ONCE_S = 180.0, 0.5, 0.2, 200e6, 2.0
_AT_ONCE = 200
_WAIT_S = 900.0

QUERIES = {
    "no filter": ("", "offset=200", "desc=1"),
    "deep offset": ("offset=999000", "offset=500000", "offset=900000&desc=1"),
    "source": ("source=DET_bench", "source=REG_bench", "source=VG_bench&source=LAZY_bench"),
    "task": ("task=DET", "task=VG", "task=REG&task=LAZY"),
    "category": ("category=ba ba", "category=kogi pa", "category=lu co&category=ba ba"),
    "boxes": ("boxes=3-5", "boxes=10-", "boxes=-1"),
    "smallest box": ("smallest=-0.1", "smallest=1-2", "smallest=0.5-"),
    "image size": ("width=640-", "height=-480", "width=300-400&height=300-400"),
    "length": ("length=300-", "length=-120", "length=200-210"),
    "text, in every sample": ("q=image", "q=the image", "q=in"),
    "text, frequent": ("q=ba", "q=co du", "q=report coordinates"),
    "text, rare": ("q=tatata", "q=zu zuba", "q=mecofe"),
    "phrase": ('q="category set"', 'q="ba ba"', 'q="report the coordinates of each"'),
    "random": ("random=1", "random=2&offset=500000", "random=3&task=DET"),
    "by key": ("sort=key", "sort=key&desc=1", "sort=key&offset=900000"),
    "by boxes": ("sort=boxes", "sort=boxes&desc=1", "sort=boxes&offset=900000"),
    "by length": ("sort=length", "sort=length&desc=1", "sort=length&offset=900000"),
    "by box area": ("sort=area", "sort=area&desc=1", "sort=area&offset=800000"),
    "all together": (
        "task=DET&category=ba ba&boxes=2-9&width=400-&q=image ba&sort=area",
        "task=VG&smallest=0.5-&length=50-&q=image&sort=length&desc=1&offset=1000",
        'task=DET&q="category set"&sort=smallest&desc=1&offset=20000',
    ),
}
"""What is asked, each in three ways, of which none is asked twice: the server keeps its last few answers."""


@click.command()
@click.option("--samples", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Write the set below this folder.")
@click.option("--keep", is_flag=True, help="Keep what was written.")
@click.option("--set", "made", type=click.Path(path_type=Path), help="Use a set that --keep has left.")
def main(samples: int, folder: Path | None, keep: bool, made: Path | None) -> None:
    """Measure `griffon-shards view`."""
    with scratch(folder, keep) as work:
        click.echo(machine(work))
        cache = work / "cache"
        if made is None:
            made = work / "set"
            make_set(made, samples)
        rows = _start_and_ask(made, cache)
        with _server(made, cache) as (base, process):
            _seconds(f"{base}/api/samples?limit=60")
            rows += [_query_row(name, asked, base) for name, asked in QUERIES.items()]
            rows.append(_at_once_row(base, len(open_set(made))))
            resident = _status_bytes(process.pid, "VmHWM")
        rows.append(
            ("most memory of the server, MB", f"{resident / 1e6:.0f}", "", "200", word(resident < _MAX_RESIDENT))
        )
        click.echo(table(("what", "median", "most", "wanted", ""), rows))


def _start_and_ask(made: Path, cache: Path) -> list[tuple[str, str, str, str, str]]:
    """The sidecar, and three warm starts until the first cards are there."""
    began = time.perf_counter()
    with _server(made, cache) as (_, process):
        build_s = time.perf_counter() - began
        built = _status_bytes(process.pid, "VmHWM")
    sidecar = next(cache.glob("*.sqlite"))
    starts = []
    for _ in range(3):
        began = time.perf_counter()
        with _server(made, cache) as (base, _):
            listening_s = time.perf_counter() - began
            first_s = _seconds(f"{base}/") + _seconds(f"{base}/api/sets") + _seconds(f"{base}/api/samples?limit=60")
            starts.append((listening_s, first_s))
    listening, first = (sorted(values) for values in zip(*starts, strict=True))
    return [
        (
            "start with the sidecar to build, s",
            f"{build_s:.0f}",
            "",
            f"{_MAX_BUILD_S:.0f}",
            word(build_s < _MAX_BUILD_S),
        ),
        ("size of the sidecar, MB", f"{sidecar.stat().st_size / 1e6:.0f}", "", "", ""),
        ("memory of the server that had it built, MB", f"{built / 1e6:.0f}", "", "", ""),
        ("warm start of the process, until it listens, s", f"{listening[1]:.2f}", f"{listening[2]:.2f}", "", ""),
        (
            "first page after a warm start, s",
            f"{first[1]:.2f}",
            f"{first[2]:.2f}",
            "0.5",
            word(first[2] < _MAX_START_S),
        ),
    ]


def _query_row(name: str, asked: tuple[str, ...], base: str) -> tuple[str, str, str, str, str]:
    seconds = [_seconds(f"{base}/api/samples?limit=60&{query.replace(' ', '%20')}") for query in asked]
    met = word(max(seconds) < _MAX_QUERY_S)
    return f"{name}, s", f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}", f"{_MAX_QUERY_S}", met


def _at_once_row(base: str, samples: int) -> tuple[str, str, str, str, str]:
    """Cards, pages of samples, thumbnails and images, none asked twice."""
    step = samples // _AT_ONCE
    kinds = ("/api/samples?limit=60&offset={}", "/api/samples/0/{}", "/thumbnail/0/{}", "/image/0/{}")
    paths = [kinds[number % len(kinds)].format(number * step) for number in range(_AT_ONCE)]
    seconds = asyncio.run(_all_at_once(base, paths))
    met = word(len(seconds) == _AT_ONCE and max(seconds) < _MAX_AT_ONCE_S)
    name = f"{len(seconds)} of {_AT_ONCE} requests at once answered, s"
    return name, f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}", f"{_MAX_AT_ONCE_S:.0f}", met


async def _all_at_once(base: str, paths: list[str]) -> list[float]:
    """The seconds that each request took that was answered with 200, all sent before any is waited for."""
    host, port = base.removeprefix("http://").split(":")

    async def ask(path: str) -> float:
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200"), answer[:200]
        return time.perf_counter() - began

    answers = await asyncio.gather(*map(ask, paths), return_exceptions=True)
    return [answer for answer in answers if isinstance(answer, float)]


@contextlib.contextmanager
def _server(made: Path, cache: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, from its start until it is stopped; yields its address once it listens."""
    command = [sys.executable, "-m", "griffon_shards", "view", str(made), "--no-browser", "--cache", str(cache)]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().rpartition(" at ")[2].strip().rstrip("/"), process
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _seconds(url: str) -> float:
    began = time.perf_counter()
    with urlopen(url, timeout=_WAIT_S) as answer:
        body = answer.read()
    if "/api/" in url:
        _check(json.loads(body))
    return time.perf_counter() - began


def _check(answer: dict[str, Any]) -> None:
    assert not [card for card in answer.get("samples", ()) if card["error"]], "a sample is damaged"


def _status_bytes(pid: int, name: str) -> int:
    return next(int(line.split()[1]) * 1024 for line in lines(f"/proc/{pid}/status") if line.startswith(name))


if __name__ == "__main__":
    main()
