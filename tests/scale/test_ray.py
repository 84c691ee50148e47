"""`griffon-prep build --engine ray` on clusters of real nodes: one digest, whatever dies."""

import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from griffon_prep.sample_data import write_sample_data
from griffon_shards import verify_set
from griffon_shards.lock import read_lock

from ..waiting import TIMEOUT_S
from .ray_cluster import ENVIRONMENT, Cluster, ray_cluster

pytest.importorskip("ray")
pytestmark = pytest.mark.scale


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "数据 data"
    write_sample_data(folder, seed=3, images=12)
    (folder / "manifest.txt").write_text("DET & ccmd/det.jsonl & pictures\nVG & ccmd/vg.jsonl & pictures\n")
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of a head with one CPU; tests add nodes, and kill those that they have added."""
    with ray_cluster(tmp_path_factory.mktemp("ray")) as cluster:
        cluster.add_node(cpus=1)
        yield cluster


def command(data: Path, out: object, *more: object) -> list[str]:
    manifest = ["--manifest", "manifest.txt", "--data-root", "."]
    options = [*manifest, "--out", str(out), "--samples-per-shard", "1", *map(str, more)]
    return [sys.executable, "-m", "griffon_prep", "build", *options]


def run(words: Sequence[str], data: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=data, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_S)


def on_ray(cluster: Cluster, data: Path, out: Path, *more: object) -> list[str]:
    address = ["--engine", "ray", "--ray-address", cluster.address]
    return [*cluster.prefix(), *command(data, out, *address, *more)]


def start(cluster: Cluster, data: Path, out: Path) -> subprocess.Popen[str]:
    """Start a build on the cluster, and wait until it has made some shards."""
    words = on_ray(cluster, data, out)
    build = subprocess.Popen(
        words, cwd=data, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    before = shards(out)
    wait_until(lambda: build.poll() is not None or shards(out) >= before + 3)
    assert build.poll() is None, build.communicate()[1]
    return build


def shards(out: Path) -> int:
    return len(list(out.glob(".griffon-build/*/[0-9]*.report")))


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def without_times(log: str) -> list[str]:
    """The lines of a log without times and speeds, sorted."""
    return sorted(re.sub(r"^\S+ \S+ |, [\d,]+/s, \d+ s left|; \S+ \S+ free", "", line) for line in log.splitlines())


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, subprocess.CompletedProcess[str]]:
    """The digest of local builds, and the last of them."""
    folder = tmp_path_factory.mktemp("plain")
    builds = {workers: run(command(data, folder / str(workers), "--workers", workers), data) for workers in (1, 2, 4)}
    digests = {read_lock(folder / str(workers)).digest for workers in builds}
    assert len(digests) == 1
    return digests.pop(), builds[4]


def test_one_two_and_three_nodes(
    cluster: Cluster, data: Path, tmp_path: Path, plain: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    """One digest, one table and one log, from relative paths."""
    for nodes in (1, 2, 3):
        out = Path(os.path.relpath(tmp_path / f"nodes{nodes}", data))
        if nodes > 1:
            cluster.add_node(cpus=1)
        built = run(on_ray(cluster, data, out), data)
        assert built.returncode == 0, built.stderr
        assert built.stdout == plain[1].stdout
        assert without_times(built.stderr) == without_times(plain[1].stderr)
        assert read_lock(data / out).digest == plain[0]
    for node in cluster.nodes[1:]:
        node.kill()


def test_a_node_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """Its running tasks run again on the other nodes."""
    data = tmp_path / "data"
    write_sample_data(data, seed=3, images=200)  # many, as the workers of a new node take seconds to start
    (data / "manifest.txt").write_text("DET & ccmd/det.jsonl & pictures\nVG & ccmd/vg.jsonl & pictures\n")
    plain = run(command(data, tmp_path / "plain"), data)
    out = tmp_path / "set"
    node = cluster.add_node(cpus=2)
    build = start(cluster, data, out)
    wait_until(node.stop_running)  # its tasks are running when it is killed
    before = shards(out)
    wait_until(lambda: build.poll() is not None or shards(out) >= before + 5)
    assert build.poll() is None
    node.kill()
    printed, log = build.communicate(timeout=TIMEOUT_S)
    assert build.returncode == 0, log
    assert "a task was lost with its node or its worker, and runs again" in log
    assert printed == plain.stdout
    assert read_lock(out).digest == read_lock(tmp_path / "plain").digest
    assert list(verify_set(out)) == []


def test_a_driver_that_is_killed(
    cluster: Cluster, data: Path, tmp_path: Path, plain: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    """Its tasks end; the same command keeps the finished shards."""
    out = tmp_path / "set"
    build = start(cluster, data, out)
    build.kill()
    build.communicate(timeout=TIMEOUT_S)
    wait_until(lambda: not busy(cluster))
    assert not (out / "griffon.lock.json").exists()
    reports = out.glob(".griffon-build/*/[0-9]*.report")
    tars = [out / path.parent.name / f"{path.parent.name}-{path.stem}.tar" for path in reports]
    finished = {path: path.stat().st_ino for path in tars}
    again = run(on_ray(cluster, data, out), data)
    assert again.returncode == 0, again.stderr
    assert len(finished) >= 3 and finished == {path: path.stat().st_ino for path in finished}
    assert read_lock(out).digest == plain[0]
    assert not list(out.rglob(".tmp-*"))


def test_an_interrupt_ends_the_tasks(
    cluster: Cluster, data: Path, tmp_path: Path, plain: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "set"
    for number in (signal.SIGTERM, signal.SIGINT):
        build = start(cluster, data, out)
        build.send_signal(number)
        printed, log = build.communicate(timeout=TIMEOUT_S)
        assert (build.returncode, printed) == (130, "")
        assert log.splitlines()[-1] == "error: interrupted; rerun the same command to resume"
        wait_until(lambda: not busy(cluster))
    assert run(on_ray(cluster, data, out), data).returncode == 0
    assert read_lock(out).digest == plain[0]


def busy(cluster: Cluster) -> bool:
    """Whether a worker of the head has a task, or had one of a driver that still exists."""
    return any("_run" in Path(f"/proc/{pid}/cmdline").read_text() for pid in cluster.nodes[0].workers())


def test_parts(
    cluster: Cluster, data: Path, tmp_path: Path, plain: tuple[str, subprocess.CompletedProcess[str]]
) -> None:
    out = tmp_path / "set"
    for more in (["--part", "2/2"], []):
        built = run(on_ray(cluster, data, out, *more), data)
        assert built.returncode == 0, built.stderr
    assert read_lock(out).digest == plain[0]


def test_without_a_cluster(data: Path, tmp_path: Path, plain: tuple[str, subprocess.CompletedProcess[str]]) -> None:
    """A cluster is started and stopped; its log lines do not show."""
    out = tmp_path / "set"
    words = command(data, out, "--engine", "ray", "--workers", "2")
    build = subprocess.Popen(
        words,
        cwd=data,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    printed, log = build.communicate(timeout=TIMEOUT_S)
    assert build.returncode == 0, log
    assert printed == plain[1].stdout
    assert without_times(log) == without_times(plain[1].stderr)
    assert not subprocess.run(["ps", "-s", str(build.pid), "-o", "args="], capture_output=True).stdout


def test_too_many_rejects_end_as_locally(cluster: Cluster, data: Path, tmp_path: Path) -> None:
    manifest = data / "none.txt"
    manifest.write_text(
        (data / "manifest.txt").read_text(encoding="utf-8").replace("pictures", "ccmd"), encoding="utf-8"
    )
    ends = [
        run([str(manifest) if word == "manifest.txt" else word for word in words], data)
        for words in (on_ray(cluster, data, tmp_path / "ray"), command(data, tmp_path / "local", "--workers", "1"))
    ]
    assert [end.returncode for end in ends] == [1, 1]
    assert ends[0].stderr.splitlines()[-1] == ends[1].stderr.splitlines()[-1]


def test_nodes_without_the_package(data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    old = tmp_path_factory.mktemp("old")
    (old / "griffon_prep.py").write_text("")
    with ray_cluster(tmp_path, PYTHONPATH=str(old)) as cluster:
        cluster.add_node(cpus=1)
        built = run(on_ray(cluster, data, tmp_path / "set"), data)
    assert built.returncode == 2
    assert built.stderr.splitlines()[-1].startswith(
        "error: a worker cannot run the jobs (System error: No module named"
    )


def test_a_cluster_that_is_not_there(data: Path, tmp_path: Path) -> None:
    built = run(command(data, tmp_path / "set", "--engine", "ray", "--ray-address", "127.0.0.1:9"), data)
    assert built.returncode == 2
    assert re.match(
        r"error: --ray-address 127.0.0.1:9: no connection to a Ray cluster \(.*\); start one with ", built.stderr
    )
    assert len(built.stderr.splitlines()) == 1
    assert not (tmp_path / "set").exists()


PROGRAM = """
import os, sys
from functools import partial
from griffon_prep.build.ray_engine import RayEngine
print = partial(print, file=sys.stderr)
with RayEngine(1, None) as engine:
    print(list(engine.run(len, ["one", "three"])))
    try:
        list(engine.run(os.stat, ["/missing"]))
    except FileNotFoundError as error:
        print(error)
    list(engine.run(os._exit, [3]))
"""


def test_a_task_that_fails_and_one_that_always_dies(tmp_path: Path) -> None:
    """An error is raised at once, as if the job had run here. A job that is lost again and again ends the build."""
    ended = run([sys.executable, "-c", PROGRAM], tmp_path)
    missing = f"[Errno 2] No such file or directory: '{platform.node()}: /missing'"
    assert ended.stderr.splitlines()[:2] == ["[3, 5]", missing]
    assert ended.returncode == 1
    killed = ended.stderr.splitlines()[-1]
    assert "DataError: a task was killed 5 times, possibly for lack of memory (" in killed
    assert "; rerun the same command, with fewer --workers or fewer CPUs per node" in killed
