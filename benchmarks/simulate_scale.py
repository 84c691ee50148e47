"""How far sets and training scale: time, requests, cost and memory for 8 million and a billion samples on many nodes.

Measured constants come from the other benchmarks and stand in `Constants`; what no machine here can measure (a store's
limits, networks, how often nodes fail) is an input, with its source. The tables are computed from both, with failures,
stragglers and refused requests drawn from a fixed seed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import click
import numpy as np
from scale_model import Build, Read, Reading, goodput, run_build, run_reading

from griffon_shards.support.tables import size

SAMPLES = (8_000_000, 1_000_000_000)
NODES = (1, 4, 16, 64, 256, 1024)
SEED = 0
STEPS = 60  # simulated; the store's limit and the connections show in them
SAMPLES_A_GPU = 16  # in a step
HOUR_S, DAY_S = 3600.0, 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Measured: see benchmarks/RESULTS.md for the machine and the command of each.

    Attributes:
        sample_s: CPU of a sample in a build with `--check decode`.
        sample_bytes: of an image and its JSON.
        record_bytes: of a record in an annotation.
        scan_bytes_per_s: an annotation is read by one process.
        finish_shard_s: CPU of `--finish` for a shard.
        index_row_bytes: of a row in `index.npy`.
        lock_shard_bytes: of a shard in the lock.
        lock_shard_s: CPU to read a shard's entry in the lock.
        lock_shard_memory: memory of an entry while the lock is read.
        plan_bytes: private memory of the plan in a process, for steps of 128.
        picked_bytes: the same for each row of conversations with and without images.
        plan_sample_s: CPU to plan a sample, by the rows of the set.
        hash_bytes_per_s: SHA-256.
        gpu_samples_per_s: samples that a GPU trains on in a second (3.2 billion parameters at 1022 px, one H200).
    """

    sample_s: float = 2 / 1758
    sample_bytes: int = 80_000
    record_bytes: int = 500
    scan_bytes_per_s: float = 105e6
    finish_shard_s: float = 0.84e-3
    index_row_bytes: int = 34
    lock_shard_bytes: int = 207
    lock_shard_s: float = 8.2e-6
    lock_shard_memory: int = 1126
    plan_bytes: int = 16_100_000
    picked_bytes: int = 4
    plan_sample_s: Mapping[int, float] = field(default_factory=lambda: {8_000_000: 1.9e-6, 1_000_000_000: 7.9e-6})
    hash_bytes_per_s: float = 893e6
    gpu_samples_per_s: float = 6.92


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Assumed, with sources.

    Attributes:
        samples_per_shard: the default for sources with images.
        cores: of a node.
        gpus: of a node.
        bucket_workers: `--workers` on a node if images are in a bucket; a worker reads one image at a time.
        network_bytes_per_s: of a node: 10 Gbit/s.
        disk_bytes_per_s: of a shared file system, all nodes together.
        latency_s: of a request.
        latency_spread: standard deviation of its logarithm; 1 in 1,000 takes 4.7 times the median.
        get_per_s: for each partition of a bucket. Amazon S3 user guide, "Best practices design patterns".
        put_per_s: the same.
        partitions: into which the store has divided the bucket; it does that by itself under load.
        refused: share of requests that are answered 503.
        wait_s: mean wait of our client before it repeats a request.
        requests: requests at once of a node in training.
        ahead_bytes: samples of a node in training that are read ahead.
        listing_requests: at once when reports are fetched.
        get_price: US dollars for 1,000 GET or HEAD requests: S3 Standard, us-east-1,
            aws.amazon.com/s3/pricing, as published in 2026; other regions and classes differ.
        put_price: the same for PUT and LIST.
        mtbf_s: of a node with eight GPUs: 419 failures in 54 days on 2,048 nodes ("The Llama 3 Herd of Models", 2024,
            section 3.3.4).
        repair_s: until a failed node is replaced.
        restart_s: until a run that failed starts again, data apart.
        saved_s: between checkpoints.
        straggle: standard deviation of the logarithm of a job's time.
    """

    samples_per_shard: int = 1000
    cores: int = 32
    gpus: int = 8
    bucket_workers: int = 256
    network_bytes_per_s: float = 1.25e9
    disk_bytes_per_s: float = 10e9
    latency_s: float = 0.05
    latency_spread: float = 0.5
    get_per_s: float = 5500
    put_per_s: float = 3500
    partitions: int = 4
    refused: float = 0.01
    wait_s: float = 0.2
    requests: int = 32
    ahead_bytes: int = 256 << 20
    listing_requests: int = 16
    get_price: float = 0.0004
    put_price: float = 0.005
    mtbf_s: float = 2048 * 54 * DAY_S / 419
    repair_s: float = 600
    restart_s: float = 300
    saved_s: float = 1800
    straggle: float = 0.3


MEASURED, ASSUMED = Constants(), Inputs()
GETS_OF_SHARD, PUTS_OF_SHARD = 3, 4  # tar, offsets, report and counts; is the set frozen meanwhile?
GETS_AT_FINISH = 4  # size and content of report and counts


def prep_row(samples: int, nodes: int, bucket: bool) -> list[str]:
    """A line of the table of builds: images, set or both in a bucket, or all on a shared file system."""
    shards = math.ceil(samples / ASSUMED.samples_per_shard)
    of_shard, built_bytes = ASSUMED.samples_per_shard, 2 * ASSUMED.samples_per_shard * MEASURED.sample_bytes
    workers = ASSUMED.bucket_workers if bucket else ASSUMED.cores
    cpu_s = of_shard * MEASURED.sample_s * workers / ASSUMED.cores
    job_s, shared_s, finish_s = cpu_s, built_bytes / ASSUMED.disk_bytes_per_s, MEASURED.finish_shard_s * shards
    if bucket:
        request_s = ASSUMED.latency_s + ASSUMED.refused * (ASSUMED.latency_s + ASSUMED.wait_s)
        requests = of_shard + GETS_OF_SHARD + PUTS_OF_SHARD
        job_s = max(cpu_s, requests * request_s + of_shard * MEASURED.sample_s)
        shared_s = max((of_shard + GETS_OF_SHARD) / ASSUMED.get_per_s, PUTS_OF_SHARD / ASSUMED.put_per_s)
        shared_s /= ASSUMED.partitions
        finish_s += GETS_AT_FINISH * shards * request_s / ASSUMED.listing_requests
    job_s = max(job_s, built_bytes / ASSUMED.network_bytes_per_s * workers)
    scan_s = samples * MEASURED.record_bytes / MEASURED.scan_bytes_per_s
    model = Build(
        jobs=shards,
        nodes=nodes,
        workers=workers,
        job_s=job_s,
        shared_s=shared_s,
        straggle=ASSUMED.straggle,
        mtbf_s=ASSUMED.mtbf_s,
        repair_s=ASSUMED.repair_s,
    )
    built = run_build(model, np.random.default_rng(SEED))
    gets = (samples + (GETS_OF_SHARD + GETS_AT_FINISH) * shards) * bucket
    puts = PUTS_OF_SHARD * shards * (1 + 1 / 1000) * bucket  # a LIST has 1,000 objects
    cost = gets / 1000 * ASSUMED.get_price + puts / 1000 * ASSUMED.put_price
    total_s = scan_s + built.wall_s + finish_s
    requests_text = [f"{(gets + puts) / 1e6:,.1f} M", f"${cost:,.0f}"] if bucket else ["-", "-"]
    times = [_time(scan_s), _time(built.wall_s), _time(finish_s), _time(total_s)]
    return [_count(samples), "bucket" if bucket else "disk", f"{nodes:,}", *times, f"{built.lost:,}", *requests_text]


@lru_cache
def reads(nodes: int) -> tuple[Read, ...]:
    """Read from a bucket in one partition, in the assumed number of them, and in half as many again as needed."""
    results = []
    for partitions in (1, ASSUMED.partitions, math.ceil(1.5 * needed_per_s(nodes) / ASSUMED.get_per_s)):
        reading = Reading(
            nodes=nodes,
            step_s=SAMPLES_A_GPU / MEASURED.gpu_samples_per_s,
            samples=ASSUMED.gpus * SAMPLES_A_GPU,
            ahead=ASSUMED.ahead_bytes // MEASURED.sample_bytes,
            requests=ASSUMED.requests,
            latency_s=ASSUMED.latency_s,
            spread=ASSUMED.latency_spread,
            transfer_s=MEASURED.sample_bytes / ASSUMED.network_bytes_per_s,
            refused=ASSUMED.refused,
            wait_s=ASSUMED.wait_s,
            store_per_s=ASSUMED.get_per_s * partitions,
        )
        results.append(run_reading(reading, STEPS, np.random.default_rng(SEED)))
    return tuple(results)


def needed_per_s(nodes: int) -> float:
    """Samples a second that the GPUs of some nodes take."""
    return nodes * ASSUMED.gpus * MEASURED.gpu_samples_per_s


def train_row(samples: int, nodes: int) -> list[str]:
    """A line of the table of training from a bucket."""
    waits = reads(nodes)
    start_s = start_seconds(samples) + waits[-1].first_s
    share = goodput(
        nodes=nodes,
        mtbf_s=ASSUMED.mtbf_s,
        saved_s=ASSUMED.saved_s,
        restart_s=ASSUMED.restart_s + start_s,
        total_s=90 * DAY_S,
        draws=np.random.default_rng(SEED),
    )
    return [
        _count(samples),
        f"{nodes:,}",
        f"{needed_per_s(nodes):,.0f}",
        *(f"{100 * wait.wait_share:.1f} %" for wait in waits[:2]),
        f"{math.ceil(needed_per_s(nodes) / ASSUMED.get_per_s)}",
        f"{100 * waits[2].wait_share:.1f} %",
        _time(start_s),
        _time(samples / needed_per_s(nodes)),
        f"${samples / 1000 * ASSUMED.get_price:,.0f}",
        f"{100 * nodes * ASSUMED.gpus * MEASURED.gpu_samples_per_s * MEASURED.plan_sample_s[samples]:.1f} %",
        f"{100 * share:.1f} %",
    ]


def start_seconds(samples: int) -> float:
    """Seconds until a machine that has nothing has lock and index of a set in a bucket, and has checked both."""
    shards, index_bytes = samples / ASSUMED.samples_per_shard, samples * MEASURED.index_row_bytes
    lock_s = shards * (MEASURED.lock_shard_bytes / ASSUMED.network_bytes_per_s + MEASURED.lock_shard_s)
    return lock_s + index_bytes / ASSUMED.network_bytes_per_s + index_bytes / MEASURED.hash_bytes_per_s


def memory_row(samples: int) -> list[str]:
    """A line of the table of what a machine and its processes hold."""
    shards = samples // ASSUMED.samples_per_shard
    return [
        _count(samples), f"{shards:,}", size(samples * MEASURED.index_row_bytes),
        size(shards * MEASURED.lock_shard_bytes),
        f"{shards * MEASURED.lock_shard_s:.1f} s", size(shards * MEASURED.lock_shard_memory), size(MEASURED.plan_bytes),
        size(samples * MEASURED.picked_bytes), _time(start_seconds(samples)),
    ]  # fmt: skip


def _count(samples: int) -> str:
    return f"{samples / 1e6:,.0f} million" if samples < 1e9 else f"{samples / 1e9:,.0f} billion"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / HOUR_S:,.1f} h"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


@click.command()
def main() -> None:
    """Print the tables of docs/scale.md."""
    click.echo(f"seed {SEED}\n{MEASURED}\n{ASSUMED}\n")
    head = ["samples", "data on", "nodes", "scan", "shards", "finish", "together", "jobs lost", "requests", "cost"]
    sizes = [(samples, nodes) for samples in SAMPLES for nodes in NODES]
    click.echo(markdown(head, [prep_row(*pair, bucket) for bucket in (False, True) for pair in sizes]) + "\n")
    head = ["samples", "nodes", "samples/s", "wait, 1 partition", f"wait, {ASSUMED.partitions}", "partitions needed"]
    head += [
        "wait with half as many again",
        "first batch",
        "epoch",
        "requests of an epoch",
        "planning, of a core",
        "goodput",
    ]
    click.echo(markdown(head, [train_row(*pair) for pair in sizes]) + "\n")
    head = ["samples", "shards", "index", "lock", "lock read in", "memory for that", "plan in a process"]
    head += ["more for conversations", "start on a new machine"]
    click.echo(markdown(head, [memory_row(samples) for samples in (1_000_000, *SAMPLES)]))


if __name__ == "__main__":
    main()
