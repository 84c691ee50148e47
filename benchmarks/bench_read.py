"""`make bench-read`: reading, decoding, starting and batching, beside the libraries one would use else.

Contenders run in turn, each in a process of its own, round after round; pictures are in the page cache. Clocks start
behind the imports and include the start of workers.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np
import orjson
from common import call, machine, scratch, word
from numpy.typing import NDArray

from griffon_shards.files import sha256_of
from griffon_shards.frozen_set import open_set
from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.lock import Lock, SourceEntry, write_lock
from griffon_shards.tables import size, table
from griffon_shards.types import TASKS

_HERE = Path(__file__).resolve().parent
_PEERS = _HERE.parent / ".venv-peers/bin/python"
_SAMPLES, _ROWS = 6000, 8_000_000
_LEAST_OF_PEERS = _LEAST_OF_REFERENCE = 3.0
_MOST_START_S, _MOST_APART, _MOST_BYTES, _MOST_PLAN_S = 2.0, 1.2, 100e6, 5.0
_MOST_WASTE = 1 / 3
_MIX = {"LAZY": (0.25, 900), "DET": (0.3125, 1500), "REG": (0.1875, 240), "VG": (0.25, 200)}
"""Share of the rows, and mean characters (gamma-distributed, shape 2), of each task in the mix for padding."""

Row = tuple[str, str, str, str]


@click.command(context_settings={"show_default": True})
@click.option("--runs", type=click.IntRange(1), default=5, help="Runs of each; medians count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the files there.")
@click.option("--quick", is_flag=True, help="3,000 samples, 200,000 rows, one run.")
def main(runs: int, folder: Path | None, keep: bool, quick: bool) -> None:
    """Measure reading and say which targets are met."""
    samples, rows, runs = (3000, 200_000, 1) if quick else (_SAMPLES, _ROWS, runs)
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        root = _make_set(own, samples)
        call([_PEERS, _HERE / "bench_read_peers.py", "mds", root, own / "mds"])
        click.echo(f"{samples:,} samples, {size(sum(shard.bytes for shard in open_set(root).lock.shards))}\n")
        found = _raw(root, own / "mds", runs, samples) + _decoded(root, max(1, runs // 2))
        found += _start(_many_rows(root, own / "many", rows), runs)
        found += _plan(_mixed_rows(root, own / "mixed", rows))
        click.echo(table(("target", "found", "wanted", ""), found))


def _make_set(own: Path, samples: int) -> Path:
    call([sys.executable, _HERE / "bench_data.py", "pictures", own, "--images", samples])
    (own / "m.txt").write_text("DET & det.jsonl & pictures\n", encoding="utf-8")
    build = Path(sys.executable).with_name("griffon-prep")
    call([build, "build", "--manifest", own / "m.txt", "--data-root", own, "--out", own / "set", "--check", "header"])
    shutil.rmtree(own / "pictures")
    return own / "set"


def _raw(root: Path, mds: Path, runs: int, samples: int) -> list[Row]:
    """Every sample's bytes once, shuffled, by two workers."""
    loops = {
        "griffon-train (two threads)": [sys.executable, _HERE / "bench_read_loops.py", "raw", root],
        "webdataset": [_PEERS, _HERE / "bench_read_peers.py", "webdataset", root],
        "Megatron-Energon": [_PEERS, _HERE / "bench_read_peers.py", "energon", root],
        "MosaicML Streaming": [_PEERS, _HERE / "bench_read_peers.py", "streaming", mds],
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(runs):
        for name, command in loops.items():
            taken, seen = orjson.loads(call(command).splitlines()[-1])
            assert seen == samples, f"{name} gave {seen} samples of {samples}"
            seconds[name].append(taken)
    _show("raw samples", seconds, samples)
    ours, *others = (median(taken) for taken in seconds.values())
    ratio = min(others) / ours
    return [_target("A raw samples/s to the best peer's", f"{ratio:.2f} x", _LEAST_OF_PEERS, ratio)]


def _decoded(root: Path, runs: int) -> list[Row]:
    """Decoded and resized to 1022 x 1022, by two workers."""
    seconds: dict[str, list[float]] = {"griffon-train": [], "the reference's way": []}
    for _ in range(runs):
        for name, way in zip(seconds, ("ours", "reference"), strict=True):
            taken, count = _ours("decoded", root, way)
            seconds[name].append(taken)
    _show("decoded and resized", seconds, count)
    ours, reference = (median(taken) for taken in seconds.values())
    ratio = reference / ours
    (worst,) = _ours("difference", root)
    return [
        _target("B decoded samples/s to the reference's", f"{ratio:.2f} x", _LEAST_OF_REFERENCE, ratio),
        _limit("B largest difference of a pixel", f"{worst:.3f} of 255", 1.0, worst),
    ]


def _start(root: Path, runs: int) -> list[Row]:
    """First batch at the start and at 95 % of an epoch of millions of rows, in fresh processes."""
    seconds: dict[float, list[float]] = {0.0: [], 0.95: []}
    resident = 0.0
    for _ in range(runs):
        for share, taken in seconds.items():
            found, above = _ours("start", root, share)
            taken.append(found)
            resident = max(resident, above)
    first, late = (median(taken) for taken in seconds.values())
    apart = max(first, late) / min(first, late)
    return [
        _limit("C first batch at step 0", f"{first:.2f} s", _MOST_START_S, first),
        _limit("C first batch at 95 %", f"{late:.2f} s", _MOST_START_S, late),
        _limit("C the one to the other", f"{apart:.2f} x", _MOST_APART, apart),
        _limit("C memory above the imports'", size(resident), _MOST_BYTES, resident),
    ]


def _plan(root: Path) -> list[Row]:
    """Planning a whole epoch, and padding."""
    taken, steps, ours, random, shared = _ours("plan", root)
    return [
        _limit(f"C planning {steps:,} steps", f"{taken:.2f} s", _MOST_PLAN_S, taken),
        _limit("D padding to that of random batches", f"{ours:.2%} of {random:.2%}", _MOST_WASTE, ours / random),
        _limit("D batches that two epochs share", str(shared), 0, shared),
    ]


def _ours(*words: object) -> list[float]:
    found: list[float] = orjson.loads(call([sys.executable, _HERE / "bench_read_loops.py", *words]).splitlines()[-1])
    return found


def _many_rows(root: Path, target: Path, rows: int) -> Path:
    """A set whose index has its rows over and over again, so that millions of rows are read from a few shards."""
    frozen = open_set(root)
    shutil.copytree(root, target)
    times = -(-rows // len(frozen))
    index = np.tile(np.asarray(frozen.index), times)[:rows]
    (source,) = frozen.lock.sources
    first, *others = frozen.lock.shards
    shards = (replace(first, samples=first.samples + rows - len(frozen)), *others)
    return _frozen(target, index, replace(frozen.lock, sources=(replace(source, samples=rows),), shards=shards))


def _mixed_rows(root: Path, target: Path, rows: int) -> Path:
    """An index of several tasks with lengths as they come; there is nothing behind it to read."""
    draws = np.random.default_rng(0)
    lock = open_set(root).lock
    target.mkdir()
    parts: list[NDArray[np.void]] = []
    sources: list[SourceEntry] = []
    for task, (share, mean_chars) in _MIX.items():
        part = np.zeros(int(rows * share), INDEX_DTYPE)
        part["record"], part["source"], part["task"] = np.arange(len(part)), len(sources), TASKS.index(task)
        part["has_image"] = 1
        part["text_chars"] = draws.gamma(2, mean_chars / 2, len(part)) + 40
        parts.append(part)
        sources.append(replace(lock.sources[0], tag=task, task=task, samples=len(part)))
    index = np.concatenate(parts)
    shards = (replace(lock.shards[0], samples=len(index)),)
    return _frozen(target, index, replace(lock, sources=tuple(sources), shards=shards))


def _frozen(target: Path, index: NDArray[np.void], lock: Lock) -> Path:
    (target / INDEX_NAME).write_bytes(index_header(len(index)) + index.tobytes())
    write_lock(target, replace(lock, index_sha256=sha256_of(target / INDEX_NAME)))
    return target


def _show(what: str, seconds: dict[str, list[float]], samples: float) -> None:
    rows = [
        (name, f"{median(taken):.2f}", f"{min(taken):.2f}-{max(taken):.2f}", round(samples / median(taken)))
        for name, taken in seconds.items()
    ]
    click.echo(table((what, "median s", "min-max s", "samples/s"), rows) + "\n")


def _target(name: str, found: str, least: float, value: float) -> Row:
    return name, found, f"at least {least:g}", word(value >= least)


def _limit(name: str, found: str, most: float, value: float) -> Row:
    return name, found, f"at most {most:.3g}", word(value <= most)


if __name__ == "__main__":
    main()
