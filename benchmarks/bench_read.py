"""`make bench-read`: reading, decoding, starting and batching, beside the libraries one would use else.

Contenders run in turn, each in a process of its own, round after round; files are in the page cache. Clocks start
behind the imports and include the start of workers.
"""

import sys
from pathlib import Path
from statistics import median

import click
import orjson
from bench_read_sets import content_bytes, make_sets, many_rows
from common import call, machine, scratch, word

from griffon_shards.frozen_set import open_set
from griffon_shards.support.tables import size, table

_HERE = Path(__file__).resolve().parent
_PEERS = _HERE.parent / ".venv-peers/bin/python"
_SAMPLES, _ROWS = 6000, 8_000_000
_BATCH = 120  # samples of a raw batch; epochs are whole ones of it
_LEAST_OF_PEERS = _LEAST_OF_REFERENCE = 3.0
_MOST_DIFFERENCE = 1.0
_MOST_START_S, _MOST_APART, _MOST_MB, _MOST_PLAN_S = 2.0, 1.2, 100, 5.0
_MOST_WASTE = 1 / 3

Row = tuple[str, str, str, str]


@click.command(context_settings={"show_default": True})
@click.option("--runs", type=click.IntRange(1), default=5, help="Runs of each; medians count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
@click.option("--keep", is_flag=True, help="Leave the files there.")
@click.option("--quick", is_flag=True, help="2,400 samples, 200,000 rows, one run.")
def main(runs: int, folder: Path | None, keep: bool, quick: bool) -> None:
    """Measure reading and say which targets are met."""
    samples, rows, runs = (2400, 200_000, 1) if quick else (_SAMPLES, _ROWS, runs)
    with scratch(folder, keep) as own:
        click.echo(machine(own))
        pictures, tasks = make_sets(own, samples)
        call([_PEERS, _HERE / "bench_read_peers.py", "mds", pictures, own / "mds"])
        shards = size(sum(shard.bytes for shard in open_set(pictures).lock.shards))
        click.echo(f"{samples:,} samples, {shards}; an index of {rows:,} rows\n")
        found = _raw(pictures, own / "mds", runs, samples) + _decoded(pictures, runs)
        many = many_rows(tasks, own / "many", rows)
        found += _start(many, runs) + _plan(many)
        click.echo(table(("target", "found", "wanted", ""), found))


def _raw(root: Path, mds: Path, runs: int, samples: int) -> list[Row]:
    """Every sample's key, picture and JSON once, shuffled, in each way that a contender has."""
    ours, peers = [sys.executable, _HERE / "bench_read_loops.py", "raw", root], [_PEERS, _HERE / "bench_read_peers.py"]
    loops: dict[tuple[str, str], list[object]] = {
        ("griffon-train, checking crc32", "two threads"): [*ours, 2],
        ("griffon-train, checking crc32", "one thread"): [*ours, 1],
    }
    for way, workers in (("two processes", 2), ("in process", 0)):
        loops["webdataset", way] = [*peers, "webdataset", root, workers]
        loops["Megatron-Energon", way] = [*peers, "energon", root, workers]
        loops["MosaicML Streaming, all predownloaded", way] = [*peers, "streaming", mds, workers]
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in loops}
    expected = [samples, content_bytes(root)]
    for _ in range(runs):
        for name, command in loops.items():
            taken, *seen = orjson.loads(call([*command, _BATCH]).splitlines()[-1])
            assert seen == expected, f"{', '.join(name)} gave samples and bytes {seen} of {expected}"
            seconds[name].append(taken)
    _show(f"raw samples, batches of {_BATCH}", {", ".join(name): taken for name, taken in seconds.items()}, samples)
    best = {way: min(median(seconds[name]) for name in loops if name[1] == way) for _, way in loops}
    mine = min(best["two threads"], best["one thread"])
    return [
        _least(f"A raw samples/s to the best peer's, {way}", best[way] / mine, _LEAST_OF_PEERS)
        for way in ("two processes", "in process")
    ]


def _decoded(root: Path, runs: int) -> list[Row]:
    """Decoded and resized to 1022 x 1022, by two workers."""
    seconds: dict[str, list[float]] = {"griffon-train": [], "Pillow's resize, CLIPImageProcessorPil": []}
    for _ in range(runs):
        for name, way in zip(seconds, ("ours", "reference"), strict=True):
            taken, count = _ours("bench_read_loops.py", "decoded", root, way)
            seconds[name].append(taken)
    _show("decoded and resized, two processes", seconds, count)
    ours, reference = (median(taken) for taken in seconds.values())
    (worst,) = _ours("bench_read_loops.py", "difference", root)
    return [
        _least("B decoded samples/s to the reference's", reference / ours, _LEAST_OF_REFERENCE),
        _most("B largest pixel difference after normalising", worst, _MOST_DIFFERENCE, "{:.3g} of 255"),
    ]


def _start(root: Path, runs: int) -> list[Row]:
    """First batch at the start and at 95 % of an epoch of millions of rows, in fresh processes."""
    seconds: dict[float, list[float]] = {0.0: [], 0.95: []}
    rank = worker = 0.0
    for _ in range(runs):
        for share, taken in seconds.items():
            found, of_rank, of_worker = _ours("bench_read_start.py", root, share)
            taken.append(found)
            rank, worker = max(rank, of_rank), max(worker, of_worker)
    first, late = (median(taken) for taken in seconds.values())
    apart = max(first, late) / min(first, late)
    return [
        _most("C first batch at step 0, index in the page cache", first, _MOST_START_S, "{:.2f} s"),
        _most("C first batch at 95 %, index in the page cache", late, _MOST_START_S, "{:.2f} s"),
        _most("C the one to the other", apart, _MOST_APART, "{:.2f} x"),
        _most("C private memory of a rank above `import torch`", rank / 1e6, _MOST_MB, "{:.0f} MB"),
        ("C private memory of a worker process", f"{worker / 1e6:.0f} MB", "-", ""),
    ]


def _plan(root: Path) -> list[Row]:
    """Planning a whole epoch, and padding."""
    taken, steps, shared = _ours("bench_read_loops.py", "plan", root)
    *ours, random = _ours("bench_read_loops.py", "padding", root)
    rows = [_most(f"C planning {steps:,} steps", taken, _MOST_PLAN_S, "{:.2f} s")]
    for grouping, waste in zip(("not grouped", "grouped by task"), ours, strict=True):
        name = f"D padding, {grouping}; of random batches {random:.1%}"
        rows.append(_most(name, waste, random * _MOST_WASTE, "{:.2%}"))
    return [*rows, _most("D batches that any two of three epochs share", shared, 0, "{:.0f}")]


def _ours(script: str, *words: object) -> list[float]:
    found: list[float] = orjson.loads(call([sys.executable, _HERE / script, *words]).splitlines()[-1])
    return found


def _show(what: str, seconds: dict[str, list[float]], samples: float) -> None:
    rows = [
        (name, f"{median(taken):.2f}", f"{min(taken):.2f}-{max(taken):.2f}", round(samples / median(taken)))
        for name, taken in seconds.items()
    ]
    click.echo(table((what, "median s", "min-max s", "samples/s"), rows) + "\n")


def _least(name: str, ratio: float, least: float) -> Row:
    return name, f"{ratio:.2f} x", f"at least {least:g} x", word(ratio >= least)


def _most(name: str, value: float, most: float, form: str) -> Row:
    """Of a value and its limit, both shown in a form."""
    return name, form.format(value), f"at most {form.format(most)}", word(value <= most)


if __name__ == "__main__":
    main()
