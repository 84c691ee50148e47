"""The models of benchmarks/simulate_scale.py: without failures they equal a formula, and with them no job is lost."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale_model

    yield scale_model


def draws() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(("jobs", "nodes", "workers"), [(1, 1, 1), (100, 3, 7), (1000, 16, 4), (5, 10, 10)])
def test_a_build_without_failures_takes_whole_rounds(model: ModuleType, jobs: int, nodes: int, workers: int) -> None:
    build = model.Build(jobs=jobs, nodes=nodes, workers=workers, job_s=2.0)
    expected = 2.0 * math.ceil(jobs / (nodes * workers))
    assert model.run_build(build, draws()) == model.Built(wall_s=pytest.approx(expected), done=jobs, lost=0)


def test_a_build_is_never_faster_than_what_its_nodes_share(model: ModuleType) -> None:
    build = model.Build(jobs=1000, nodes=1000, workers=8, job_s=1.0, shared_s=0.5)
    assert model.run_build(build, draws()).wall_s == pytest.approx(500)


def test_every_job_is_done_once_however_often_nodes_fail(model: ModuleType) -> None:
    build = model.Build(jobs=2000, nodes=8, workers=4, job_s=10, straggle=0.5, mtbf_s=60, repair_s=5)
    built = model.run_build(build, draws())
    assert built.done == build.jobs and built.lost > 100
    assert built.wall_s > model.run_build(replace(build, mtbf_s=0), draws()).wall_s


def test_more_nodes_are_never_slower_and_lose_no_job(model: ModuleType) -> None:
    walls = []
    for nodes in (1, 2, 4, 8, 16):
        built = model.run_build(
            model.Build(jobs=3000, nodes=nodes, workers=4, job_s=3, straggle=0.3, mtbf_s=2000, repair_s=60), draws()
        )
        assert built.done == 3000
        walls.append(built.wall_s)
    assert walls == sorted(walls, reverse=True)


def test_training_waits_only_for_what_the_store_or_the_connections_cannot_give(model: ModuleType) -> None:
    reading = model.Reading(nodes=4, step_s=1, samples=40, ahead=200, requests=10, latency_s=0.05)
    read = model.run_reading(reading, 50, draws())
    assert read.first_s == pytest.approx(4 * 0.05) and read.wait_share == pytest.approx(0)
    slow = model.run_reading(replace(reading, latency_s=0.5), 200, draws())
    assert slow.wait_share == pytest.approx(0.5, abs=0.05)  # 40 samples of half a second on ten connections
    throttled = model.run_reading(replace(reading, store_per_s=4 * 40 / 2), 200, draws())
    assert throttled.wait_share == pytest.approx(0.5, abs=0.05)


def test_a_run_without_failures_loses_nothing_and_more_nodes_lose_more(model: ModuleType) -> None:
    def share(nodes: int, mtbf_s: float) -> float:
        value: float = model.goodput(nodes=nodes, mtbf_s=mtbf_s, saved_s=600, restart_s=300, total_s=1e7, draws=draws())
        return value

    assert share(64, 0) == 1
    shares = [share(nodes, 2e7) for nodes in (1, 64, 1024)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(1 - (300 + 300) * 1024 / 2e7, abs=0.01)  # half a save and a restart each time
