"""Training from a bucket with 50 ms latency and 100 MB/s: the first batch, the wait for data, and the cache.

The cache is half as large as the set, and three epochs are read. What it fetches is compared with what two policies
fetch that are written here in a few lines: farthest in the future, and least recently used.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click
import common
import numpy as np

STEP_S = 0.05
SAMPLES = 8
STEPS = 200
EPOCHS = 3
_HERE = Path(__file__).parent
_NEVER = 1 << 62


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write.  [default: temporary files]")
@click.option("--images", default=240, show_default=True, help="Images of the sample data.")
def main(folder: Path | None, images: int) -> None:
    """Print the figures as a table."""
    with common.scratch(folder, keep=False) as here:
        click.echo(common.machine(here))
        _make_set(here, images)
        with _bucket(here / "bucket"):
            _measure(here)


def _measure(here: Path) -> None:
    import torch  # noqa: F401 - imports are not measured

    from griffon_shards.frozen_set import open_set
    from griffon_train.data.loader import Loader
    from griffon_train.data.node_reader import CacheSettings, node_reader
    from griffon_train.data.plan import Plan

    os.environ["XDG_CACHE_HOME"] = str(here / "index")
    reader = node_reader(sets=[open_set("s3://bench/set")])  # imports what the store needs, here and there
    reader.figures()  # answered when its imports are done
    shutil.rmtree(here / "index")
    began = time.perf_counter()
    plan = Plan([open_set("s3://bench/set")], seed=0, global_batch=SAMPLES)
    loader = partial(Loader, micro_batch=SAMPLES, workers=2, image_px=336, stop=STEPS)
    first_s, waited = _waits(loader(plan, reader=reader), began)
    reader.stop()
    local = Plan([open_set(here / "bucket" / "set")], seed=0, global_batch=SAMPLES)
    local_s, local_waited = _waits(loader(local), time.perf_counter())
    click.echo(
        f"first batch             {first_s:.2f} s (at most 2 s: {common.word(first_s <= 2)}); disk {local_s:.2f} s"
    )
    click.echo(
        f"data wait               {waited:.1%} at {STEP_S * 1000:.0f} ms a step (under 5 %: "
        f"{common.word(waited < 0.05)}); disk {local_waited:.1%}"
    )

    frozen = plan.sets[0]
    sizes = frozen.index["bytes"].astype(np.int64)
    capacity = int(sizes.sum()) // 2
    steps = plan.steps_of(EPOCHS)
    reader = node_reader(cache=CacheSettings(folder=here / "cache", size_bytes=capacity))
    for _ in Loader(plan, micro_batch=SAMPLES, workers=2, image_px=14, stop=steps, reader=reader, cached=True):
        pass
    fetched = reader.figures()["fetched"]
    reader.stop()
    rows = [row for step in range(steps) for row in plan.step(step).rows.tolist()]
    best, recent = optimal(rows, sizes, capacity), least_recently_used(rows, sizes, capacity)
    click.echo(
        f"{EPOCHS} epochs of {len(frozen):,} samples, {sizes.sum() / 1e6:.1f} MB; a cache of {capacity / 1e6:.1f} MB"
    )
    click.echo(
        f"fetched                 {fetched / 1e6:.1f} MB; optimal {best / 1e6:.1f} MB ({fetched / best:.4f} of it: "
        f"{common.word(fetched <= 1.02 * best)}); LRU {recent / 1e6:.1f} MB ({common.word(fetched < recent)})"
    )


def optimal(rows: list[int], sizes: np.ndarray, capacity: int) -> int:
    """Bytes that are fetched if what is needed again farthest in the future is evicted."""
    later: dict[int, int] = {}
    next_use = [_NEVER] * len(rows)
    for place in range(len(rows) - 1, -1, -1):
        next_use[place] = later.get(rows[place], _NEVER)
        later[rows[place]] = place
    held: dict[int, int] = {}
    used = fetched = 0
    for place, row in enumerate(rows):
        if held.pop(row, None) is None:
            fetched += int(sizes[row])
        else:
            used -= int(sizes[row])
        if next_use[place] < _NEVER:
            held[row] = next_use[place]
            used += int(sizes[row])
        while used > capacity:
            farthest = max(held, key=held.__getitem__)
            used -= int(sizes[farthest])
            del held[farthest]
    return fetched


def least_recently_used(rows: list[int], sizes: np.ndarray, capacity: int) -> int:
    """Bytes that are fetched if what was not used for longest is evicted."""
    held: OrderedDict[int, None] = OrderedDict()
    used = fetched = 0
    for row in rows:
        if row in held:
            held.move_to_end(row)
            continue
        fetched += int(sizes[row])
        held[row] = None
        used += int(sizes[row])
        while used > capacity:
            used -= int(sizes[held.popitem(last=False)[0]])
    return fetched


def _make_set(here: Path, images: int) -> None:
    prep = (sys.executable, "-m", "griffon_prep")
    common.call((*prep, "sample-data", here / "data", "--images", images))
    manifest = here / "manifest.txt"
    text = (here / "data" / "manifest.txt").read_text(encoding="utf-8")
    manifest.write_text(
        "".join(line for line in text.splitlines(keepends=True) if "& llava/" in line), encoding="utf-8"
    )
    out = here / "bucket" / "set"
    common.call((*prep, "build", "--manifest", manifest, "--data-root", here / "data", "--out", out))
    shutil.rmtree(here / "data")


def _waits(batches: Iterable[object], began: float) -> tuple[float, float]:
    """Seconds until the first batch, and the share of the time after it that is spent waiting for others."""
    waits = []
    for _ in batches:
        waits.append(time.perf_counter() - began)
        time.sleep(STEP_S)
        began = time.perf_counter()
    later = sum(waits[1:])
    return waits[0], later / (later + STEP_S * len(waits[1:]))


@contextmanager
def _bucket(folder: Path) -> Iterator[None]:
    """Serve a folder as a bucket; clients of this process and its children use it."""
    server = subprocess.Popen([sys.executable, str(_HERE / "bucket_server.py"), str(folder)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        yield
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
