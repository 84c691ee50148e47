"""Measures what `simulate_scale.py` computes with and no other benchmark has: plan, index, lock, scan and finish.

The index of a billion rows is a sparse file: it takes no disk space and its rows are zeros. Steps planned over it read
its pages as those of any index that is in the page cache.
"""

import resource
import sys
import time
from pathlib import Path

import click
import numpy as np
import orjson
from common import call, machine, scratch

from griffon_shards.index import INDEX_DTYPE, INDEX_NAME, index_header
from griffon_shards.lock import LOCK_NAME, Lock, ShardEntry, SourceEntry, read_lock, write_lock
from griffon_shards.support.files import sha256_of
from griffon_shards.support.tables import size, table

_HERE = Path(__file__).resolve().parent
_PLANS = (
    ("DET", 1_000_000, 128),
    ("DET", 8_000_000, 128),
    ("DET", 1_000_000_000, 128),
    ("DET", 8_000_000, 16_384),
    ("LAZY", 1_000_000, 128),
    ("LAZY", 8_000_000, 128),
)
"""Task, rows, and samples of a step."""

_STEPS = 256  # the windows that are looked up together
_SHARDS = (1_000, 10_000, 100_000)
_FEW_SHARDS, _IMAGES = 2, 1000
_SCAN_MB = 200
_HASHED = 1 << 30

Rows = list[tuple[str, str]]


@click.group()
def main() -> None:
    """Measure constants; `all` prints the table, the other commands are its parts in processes of their own."""


@main.command("all")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write; by default on this disk.")
def all_command(folder: Path | None) -> None:
    """Measure everything."""
    with scratch(folder, keep=False) as own:
        click.echo(machine(own) + "\n")
        click.echo(table(["what", "measured"], [*_plans(own), *_locks(own), *_hash(own), *_prep(own)]))


@main.command("plan")
@click.argument("root")
@click.argument("global_batch", type=int)
def plan_command(root: str, global_batch: int) -> None:
    """Print CPU seconds to the first windows, those of a later sample, and private bytes above the imports, as JSON."""
    from griffon_shards.frozen_set import open_set
    from griffon_train.data.plan import Plan

    before = _private_bytes()
    began = time.process_time()
    frozen = open_set(root)
    plan = Plan([frozen], seed=0, global_batch=global_batch, grouping="modality")
    first = plan.first_step(1) // 2
    plan.step(first)
    opened_s = time.process_time() - began
    for number in range(first + 1, first + _STEPS):
        plan.step(number)
    sample_s = (time.process_time() - began - opened_s) / (_STEPS - 1) / global_batch
    click.echo(orjson.dumps([opened_s, sample_s, _private_bytes() - before]))


@main.command("lock")
@click.argument("root", type=click.Path(path_type=Path))
def lock_command(root: Path) -> None:
    """Print CPU seconds to read a lock, and how far that raised the peak of resident memory, as JSON."""
    before = _peak_bytes()
    began = time.process_time()
    read_lock(root)
    click.echo(orjson.dumps([time.process_time() - began, _peak_bytes() - before]))


def _plans(own: Path) -> Rows:
    rows: Rows = []
    for task, count, batch in _PLANS:
        root = own / f"plan-{task}-{count}-{batch}"
        _fake_set(root, task, count)
        opened_s, sample_s, private = orjson.loads(call([sys.executable, __file__, "plan", root, batch]))
        (root / INDEX_NAME).unlink()
        what = f"plan, {count / 1e6:,.0f} million rows, steps of {batch:,}" + (
            "" if task == "DET" else " of LAZY with and without images"
        )
        rows += [
            (f"{what}: set opened, a step in the middle of the epoch, CPU", f"{opened_s:.2f} s"),
            (f"{what}: later steps, CPU for a sample", f"{1e6 * sample_s:.2f} µs"),
            (f"{what}: private memory of a process", size(private)),
        ]
    return rows


def _locks(own: Path) -> Rows:
    rows: Rows = []
    for count in _SHARDS:
        root = own / f"lock-{count}"
        root.mkdir()
        write_lock(root, _lock("DET", count * 1000, count))
        seconds, peak = orjson.loads(call([sys.executable, __file__, "lock", root]))
        rows += [
            (f"lock of {count:,} shards: size", size((root / LOCK_NAME).stat().st_size)),
            (f"lock of {count:,} shards: read and checked, CPU", f"{seconds:.2f} s"),
            (f"lock of {count:,} shards: peak of memory above the imports", size(peak)),
        ]
    return rows


def _hash(own: Path) -> Rows:
    path = own / "hashed"
    with path.open("wb") as file:
        file.truncate(_HASHED)
    began = time.process_time()
    sha256_of(path)
    return [
        ("index: bytes a row", f"{INDEX_DTYPE.itemsize}"),
        ("SHA-256 of a file, CPU", size(_HASHED / (time.process_time() - began)) + "/s"),
    ]


def _prep(own: Path) -> Rows:
    """CPU seconds of `--finish` for a shard, and of a scan for a record: differences between two builds."""
    call([sys.executable, _HERE / "bench_data.py", "pictures", own, "--images", _IMAGES])
    call([sys.executable, _HERE / "bench_data.py", "large", own / "large.jsonl", "--kind", "ccmd",
          "--megabytes", _SCAN_MB, "--images", _IMAGES])  # fmt: skip
    with (own / "large.jsonl").open("rb") as file:
        records = sum(1 for _ in file)
    (own / "few.txt").write_text("DET & det.jsonl & pictures\n", encoding="utf-8")
    (own / "large.txt").write_text("DET & large.jsonl & pictures & limit=10\n", encoding="utf-8")
    finish = {}
    for shards in (_FEW_SHARDS, _IMAGES):
        build = ["build", "--manifest", own / "few.txt", "--data-root", own, "--out", own / f"out-{shards}"]
        build += ["--samples-per-shard", _IMAGES // shards, "--check", "header", "--workers", 1]
        call([sys.executable, "-m", "griffon_prep", *build, "--part", "1/1"])
        finish[shards] = _cpu_seconds([*build, "--finish"])
    of_shard = (finish[_IMAGES] - finish[_FEW_SHARDS]) / (_IMAGES - _FEW_SHARDS)
    build = ["build", "--manifest", own / "large.txt", "--data-root", own, "--out", own / "scanned", "--workers", 1]
    scan_s = _cpu_seconds(build) - finish[_FEW_SHARDS]
    return [
        ("build --finish, for each shard, CPU", f"{1e3 * of_shard:.2f} ms"),
        ("scan of JSONL with a hundred boxes a record, CPU", f"{records / scan_s:,.0f} records/s"),
        ("the same in bytes", size((own / "large.jsonl").stat().st_size / scan_s) + "/s"),
    ]


def _cpu_seconds(arguments: list[object]) -> float:
    """CPU seconds of griffon-prep and its workers."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call([sys.executable, "-m", "griffon_prep", *arguments])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _fake_set(root: Path, task: str, rows: int) -> None:
    """A set without shards, whose index has so many rows."""
    root.mkdir()
    write_lock(root, _lock(task, rows, 1))
    with (root / INDEX_NAME).open("wb") as file:
        file.write(index_header(rows))
        if task == "LAZY":
            some = np.zeros(min(rows, 1_000_000), INDEX_DTYPE)
            some["has_image"] = np.random.default_rng(0).integers(0, 2, len(some))
            for _ in range(rows // len(some)):
                file.write(some.tobytes())
        file.truncate(len(index_header(rows)) + rows * INDEX_DTYPE.itemsize)


def _lock(task: str, samples: int, shards: int) -> Lock:
    source = SourceEntry(
        tag=task,
        task=task,
        format="ccmd",
        annotation="made/up.jsonl",
        annotation_bytes=samples * 500,
        annotation_sha256="0" * 64,
        options={},
        records=samples,
        samples=samples,
        rejected={},
        weight="1",
    )
    entries = (
        ShardEntry(
            name=f"{task}/{task}-{number:06}.tar",
            samples=samples // shards,
            bytes=samples // shards * 80_000,
            sha256=f"{number:064x}",
            dropped_boxes={},
        )
        for number in range(shards)
    )
    return Lock(
        tool_version="0",
        library_versions={},
        render={"render_version": 4, "variants": 1},
        sources=(source,),
        shards=tuple(entries),
        index_sha256="0" * 64,
    )


def _peak_bytes() -> int:
    """Most resident memory of this process; that of `resource` includes what it was forked from."""
    rows = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM"))


def _private_bytes() -> int:
    rows = (line.split() for line in Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines())
    return sum(int(row[1]) * 1024 for row in rows if row[0] in ("Private_Clean:", "Private_Dirty:"))


if __name__ == "__main__":
    main()
