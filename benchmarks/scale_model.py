"""The models that `simulate_scale.py` runs: jobs on machines that fail, and training that reads ahead."""

import heapq
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Equal jobs, one shard each, on workers of several nodes.

    Attributes:
        jobs: number of jobs.
        nodes: number of nodes.
        workers: workers of a node.
        job_s: seconds of a job on a worker, before it straggles.
        shared_s: seconds for which a job keeps what all nodes share: the store's limit of requests, or a file system.
        straggle: standard deviation of the logarithm of a job's time.
        mtbf_s: mean time between failures of a node; 0 for none.
        repair_s: seconds until a failed node works again.
    """

    jobs: int
    nodes: int
    workers: int
    job_s: float
    shared_s: float = 0.0
    straggle: float = 0.0
    mtbf_s: float = 0.0
    repair_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The end of a build: seconds, jobs done (each counts once), and attempts that a failure ended."""

    wall_s: float
    done: int
    lost: int


def run_build(build: Build, draws: np.random.Generator) -> Built:
    """Hand jobs to whichever worker is free first. A failing node loses its running jobs, which are handed out anew."""
    failures = _Failures(build, draws)
    factors = _Factors(build.straggle, draws)
    free = [(0.0, worker) for worker in range(min(build.nodes * build.workers, build.jobs))]
    returned: list[float] = []  # when jobs that were lost can be handed out again
    left, done, lost, wall_s, shared_free = build.jobs, 0, 0, 0.0, 0.0
    while done < build.jobs:
        now, worker = heapq.heappop(free)
        if left:
            left -= 1
        else:  # every attempt's end is known when it begins, so what is not done has been lost
            now = max(now, heapq.heappop(returned))
        shared_free = max(shared_free, now) + build.shared_s
        end = max(now + build.job_s * factors.draw(), shared_free)
        failed_at = failures.first_in(worker // build.workers, now, end)
        if failed_at is None:
            done += 1
            wall_s = max(wall_s, end)
            heapq.heappush(free, (end, worker))
        else:
            lost += 1
            heapq.heappush(returned, failed_at)
            heapq.heappush(free, (failed_at + build.repair_s, worker))
    return Built(wall_s=wall_s, done=done, lost=lost)


class _Failures:
    """The times at which each node fails, drawn as far as they are asked for."""

    def __init__(self, build: Build, draws: np.random.Generator) -> None:
        self._mtbf_s, self._draws = build.mtbf_s, draws
        self._times: list[list[float]] = [[] for _ in range(build.nodes)]

    def first_in(self, node: int, start: float, end: float) -> float | None:
        if not self._mtbf_s:
            return None
        times = self._times[node]
        while not times or times[-1] <= end:
            times.append((times[-1] if times else 0.0) + float(self._draws.exponential(self._mtbf_s)))
        first = times[bisect_right(times, start)]
        return first if first < end else None


class _Factors:
    """Lognormal factors with mean 1, drawn many at a time."""

    def __init__(self, sigma: float, draws: np.random.Generator) -> None:
        self._sigma, self._draws = sigma, draws
        self._drawn: list[float] = []

    def draw(self) -> float:
        if not self._sigma:
            return 1.0
        if not self._drawn:
            self._drawn = self._draws.lognormal(-(self._sigma**2) / 2, self._sigma, 1 << 16).tolist()
        return self._drawn.pop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Synchronous training whose nodes read ahead from a store.

    Attributes:
        nodes: number of nodes.
        step_s: seconds of a step without waiting.
        samples: samples of a node in a step.
        ahead: samples that a node has in memory or on their way.
        requests: requests of a node at once.
        latency_s: median latency of a request.
        spread: standard deviation of its logarithm.
        transfer_s: seconds in which a sample's bytes pass a node's network.
        refused: share of requests that are refused and repeated.
        wait_s: mean wait before a request is repeated.
        store_per_s: requests a second that the store answers; more are slowed down to that.
    """

    nodes: int
    step_s: float
    samples: int
    ahead: int
    requests: int
    latency_s: float
    spread: float = 0.0
    transfer_s: float = 0.0
    refused: float = 0.0
    wait_s: float = 0.0
    store_per_s: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Seconds to the first batch, and the share of the later time in which the slowest node made all others wait."""

    first_s: float
    wait_share: float


def run_reading(reading: Reading, steps: int, draws: np.random.Generator) -> Read:
    """Begin each step on all nodes when the slowest has its samples; a node asks for a sample once it has room."""
    free = np.zeros((reading.nodes, reading.requests))  # when each connection is free
    network = np.zeros(reading.nodes)
    nodes = np.arange(reading.nodes)
    begins: list[float] = []
    ahead_steps = max(1, reading.ahead // reading.samples)
    least_s = reading.nodes * reading.requests / reading.store_per_s
    for step in range(steps):
        asked = begins[step - ahead_steps] if step >= ahead_steps else 0.0
        ready = np.zeros(reading.nodes)
        for _ in range(reading.samples):
            connection = np.argmin(free, axis=1)
            answered = np.maximum(free[nodes, connection], asked) + np.maximum(_latency(reading, draws), least_s)
            network = np.maximum(network, answered - reading.transfer_s) + reading.transfer_s
            free[nodes, connection] = network
            ready = np.maximum(ready, network)
        begins.append(max(begins[-1] + reading.step_s if begins else 0.0, float(ready.max())))
    computed = (steps - 1) * reading.step_s
    return Read(first_s=begins[0], wait_share=1 - computed / (begins[-1] - begins[0]) if steps > 1 else 0.0)


def _latency(reading: Reading, draws: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    latency = reading.latency_s * np.exp(reading.spread * draws.standard_normal(reading.nodes))
    if reading.refused:
        again = draws.geometric(1 - reading.refused, reading.nodes) - 1
        latency += again * (reading.latency_s + reading.wait_s)
    return latency


def goodput(
    *, nodes: int, mtbf_s: float, saved_s: float, restart_s: float, total_s: float, draws: np.random.Generator
) -> float:
    """Share of the time in which a training run advances, when any node's failure sets all back to the last checkpoint.

    Args:
        nodes: number of nodes.
        mtbf_s: mean time between failures of a node; 0 for none.
        saved_s: seconds between checkpoints.
        restart_s: seconds from a failure until the first new step.
        total_s: simulated time.
        draws: random numbers.
    """
    if not mtbf_s:
        return 1.0
    now = advanced = 0.0
    while now < total_s:
        until = min(float(draws.exponential(mtbf_s / nodes)), total_s - now)
        failed = now + until < total_s
        advanced += until - until % saved_s if failed else until
        now += until + (restart_s if failed else 0.0)
    return advanced / total_s
