"""Builds whose jobs run in an executor of the user's."""

import errno
import importlib.util
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from griffon_prep.build.engines import ExecutorEngine
from griffon_prep.build.worker_call import WorkerCall
from griffon_prep.cli import main
from griffon_shards.lock import read_lock
from griffon_shards.storage.errors import StorageError
from griffon_shards.support.errors import DataError, SettingsError

FACTORIES = """
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

def processes(workers):
    '''Workers with another current folder, as on another machine.'''
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=os.chdir, initargs=("/",))

def broken(workers):
    return ProcessPoolExecutor(workers, initializer=os._exit, initargs=(1,))

def none(workers):
    return None

number = 3
"""


@pytest.fixture
def build(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `griffon-prep build` in a folder with a module of factories, into its folder `set`."""
    (tmp_path / "griffon_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")

    def run(*options: str, manifest: Path = small_data / "manifest.txt", out: str = "set") -> Result:
        words = ["build", "--manifest", str(manifest), "--data-root", str(small_data), "--out", out, *options]
        return CliRunner().invoke(main, [*words, "--workers", "2", "--samples-per-shard", "20"])

    return run


def test_one_digest(build: Callable[..., Result], tmp_path: Path) -> None:
    names = ["local", "concurrent.futures:ThreadPoolExecutor", "griffon_factories:processes"]
    built = [build("--engine", name, out=f"set{place}") for place, name in enumerate(names)]
    assert [result.exit_code for result in built] == [0, 0, 0], [result.stderr for result in built]
    assert len({result.stdout for result in built}) == 1
    locks = [read_lock(tmp_path / f"set{place}") for place in range(len(names))]
    assert locks[0] == locks[1] == locks[2]
    assert len({(tmp_path / f"set{place}/report.html").read_bytes() for place in range(len(names))}) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "slurm"], "--engine slurm: expected local, ray or MODULE:FACTORY"),
        (
            ["--engine", "no_such:thing"],
            "--engine no_such:thing: No module named 'no_such'; install the module, or add ",
        ),
        (["--engine", "griffon_factories:two"], "the module griffon_factories has no function or class two"),
        (["--engine", "griffon_factories:number"], "the module griffon_factories has no function or class number"),
        (["--engine", "griffon_factories:none"], "returned NoneType, expected a concurrent.futures.Executor"),
        (["--ray-address", "auto"], "--ray-address auto: only for --engine ray"),
    ],
)
def test_engines_that_are_none(
    build: Callable[..., Result], tmp_path: Path, options: Sequence[str], message: str
) -> None:
    """One line, before anything is written."""
    ended = build(*options)
    assert ended.exit_code == 2
    assert message in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray(build: Callable[..., Result]) -> None:
    ended = build("--engine", "ray")
    assert (ended.exit_code, ended.stderr) == (
        2,
        "error: --engine ray: the package ray is missing; run pip install 'griffon-pipeline[ray]'\n",
    )


def test_an_executor_that_fails(build: Callable[..., Result]) -> None:
    ended = build("--engine", "griffon_factories:broken")
    assert ended.exit_code == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: --engine griffon_factories:broken: the executor failed (BrokenProcessPool: ")
    assert last.endswith("; rerun the same command to resume")


def test_an_error_of_a_job_is_that_of_a_local_build(
    build: Callable[..., Result], small_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.jsonl").write_bytes(b"[{" + (small_data / "llava/captions.json").read_bytes()[2:500])
    manifest = tmp_path / "cut.txt"
    manifest.write_text(f"LAZY & {tmp_path / 'cut.jsonl'} & pictures\n")
    local, pool = (
        build("--engine", name, manifest=manifest) for name in ("local", "concurrent.futures:ThreadPoolExecutor")
    )
    assert (local.exit_code, local.stderr) == (1, pool.stderr)


def test_few_jobs_are_submitted_at_a_time() -> None:
    waiting = threading.Event()
    unfinished: set[Future[Any]] = set()
    most = 0

    class Counting(ThreadPoolExecutor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:  # noqa: ANN401
            nonlocal most
            future = super().submit(function, *arguments, **more)
            unfinished.add(future)
            future.add_done_callback(unfinished.discard)
            most = max(most, len(unfinished))
            if len(unfinished) > 5:
                waiting.set()
            return future

    with ExecutorEngine("counting", Counting, 2) as engine:
        results = list(engine.run(lambda job: waiting.wait() and job, range(100)))
    assert sorted(results) == list(range(100))
    assert most == 6


def test_workers_with_other_versions_are_refused() -> None:
    call = WorkerCall(function=len, versions={"pillow": "1.0"})
    with pytest.raises(
        SettingsError, match=r"^the workers on .* have pillow .*, expected 1\.0 as on the machine of this"
    ):
        call("abc")


def test_errors_of_a_disk_or_a_store_name_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "node7")

    def fail(error: Exception) -> None:
        raise error

    call = WorkerCall(function=fail, versions={})
    with pytest.raises(OSError, match=r"node7: /disk/a\.tar") as raised:
        call(OSError(errno.ENOSPC, "No space left on device", "/disk/a.tar"))
    assert pickle.loads(pickle.dumps(raised.value)).filename == "node7: /disk/a.tar"
    with pytest.raises(StorageError, match=r"^node7: s3://b: no credentials"):
        call(StorageError("s3://b: no credentials"))


def test_a_factory_that_fails_and_an_executor_that_takes_no_job_are_one_line() -> None:
    def factory(_workers: int) -> ThreadPoolExecutor:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    with pytest.raises(SettingsError, match=r"^--engine mine: the factory failed \(ConnectionRefusedError: .*refused"):
        ExecutorEngine("mine", factory, 2)
    executor = ThreadPoolExecutor(2)
    executor.shutdown()
    with (
        pytest.raises(DataError, match=r"^--engine mine: the executor failed \(RuntimeError: .*rerun the same command"),
        ExecutorEngine("mine", lambda _: executor, 2) as engine,
    ):
        list(engine.run(len, ["a"]))
