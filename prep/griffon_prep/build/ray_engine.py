"""`--engine ray`: runs the jobs of a build as tasks of Ray Core, on a running cluster or on one started for the build.

A task that is lost with its node or its worker process runs again. Ray's own retries are off, because they have no
limit for tasks that are killed for lack of memory.
"""

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from io import TextIOBase
from typing import Any, Generic, Self

import ray
from ray.exceptions import RayError, RayTaskError

from griffon_prep.build.worker_call import WorkerCall, package_versions
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.processes import available_cores
from griffon_shards.support.worker_pool import Job, Result, run_in_window, window_of

_log = logging.getLogger(__name__)

_MOST_LOSSES = 4  # of one job: more are its own fault rather than that of nodes
_PROBE_S = 10.0
_OBJECT_STORE_BYTES = 100_000_000  # results are small


class RayEngine:
    """A connection to a Ray cluster; a context manager. At its end, Ray kills what still runs of the build."""

    def __init__(self, workers: int | None, address: str | None) -> None:
        """Connect to a cluster, or start one on this machine.

        Args:
            workers: number of tasks that run at once, or None for one per CPU of the cluster.
            address: `auto` or HOST:PORT of a running cluster, or None to start one.

        Raises:
            SettingsError: there is no such cluster, or its versions differ.
        """
        self._exit = ExitStack()
        self._exit.enter_context(redirect_stdout(_RayNotices()))
        self._exit.callback(ray.shutdown)
        _connect(workers, address)
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if not cpus:
            _log.warning("the Ray cluster has no CPUs; the build waits for nodes")
        self._window = workers if workers and address else window_of(max(1, cpus))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the results of all jobs in the order in which they finish.

        Raises:
            DataError: a job was lost several times.
            Exception: any exception raised by a job.
        """
        tasks = _Tasks(WorkerCall(function=function, versions=package_versions()))
        return run_in_window(tasks.submit, tasks.collect, jobs, self._window)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task(Generic[Job]):
    """A submitted job, and how often it was lost before."""

    job: Job
    losses: int


def _run(call: WorkerCall[Job, Result], job: Job) -> Result:
    return call(job)


_REMOTE = ray.remote(num_cpus=1, max_retries=0)(_run)


class _Tasks(Generic[Job, Result]):
    """The unfinished tasks of one function."""

    def __init__(self, call: WorkerCall[Job, Result]) -> None:
        self._call = call
        self._unfinished: dict[ray.ObjectRef[Result], _Task[Job]] = {}

    def submit(self, job: Job, losses: int = 0) -> "ray.ObjectRef[Result]":
        """Start a task for a job; returns a reference to its result."""
        reference = _REMOTE.remote(self._call, job)
        self._unfinished[reference] = _Task(job=job, losses=losses)
        return reference

    def collect(self, running: "list[ray.ObjectRef[Result]]") -> "tuple[list[Result], list[ray.ObjectRef[Result]]]":
        """Wait for a task. Returns the results of the finished ones, and references to the others.

        Raises:
            SettingsError: workers lack the package.
            DataError: a job was lost several times.
            Exception: any exception raised by a job.
        """
        done, running = ray.wait(running)
        results = []
        for reference in done:
            task = self._unfinished.pop(reference)
            try:
                results.append(ray.get(reference))
            except RayTaskError as error:
                if isinstance(error.cause, RayError):  # the job was not even begun
                    raise SettingsError(
                        f"a worker cannot run the jobs ({_first_line(error.cause)}); install the same griffon-pipeline "
                        "on all machines of the cluster"
                    ) from error
                raise error.cause from error
            except RayError as error:
                running.append(self._again(task, error))
        return results, running

    def _again(self, task: _Task[Job], error: RayError) -> "ray.ObjectRef[Result]":
        """Run a lost job again."""
        reason = _first_line(error)
        if task.losses == _MOST_LOSSES:
            raise DataError(
                f"a task was killed {task.losses + 1} times, possibly for lack of memory ({reason}); rerun the same "
                "command, with fewer --workers or fewer CPUs per node (ray start --num-cpus) if memory is low"
            ) from None
        _log.warning(f"a task was lost with its node or its worker, and runs again ({reason})")
        return self.submit(task.job, task.losses + 1)


def _first_line(error: RayError) -> str:
    return str(error).partition("\n")[0]


class _RayNotices(TextIOBase):
    """Logs what Ray prints to standard output, which is for results."""

    def write(self, text: str) -> int:
        """Log the lines at DEBUG."""
        for line in text.splitlines():
            if line.strip():
                _log.debug(f"ray: {line.strip()}")
        return len(text)


def _connect(workers: int | None, address: str | None) -> None:
    """Initialize Ray without its log lines and its signal handler.

    Raises:
        SettingsError: there is no such cluster, or its versions differ.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send nothing anywhere
    terminate = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {"num_cpus": workers or available_cores(), "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        if address not in (None, "auto"):
            _probe(address)
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **({**own, "include_dashboard": False} if address is None else {}),
        )
    except (OSError, RuntimeError, ValueError, RayError) as error:
        reason = " ".join(str(error).split())
        if address is None:
            raise SettingsError(f"--engine ray: a Ray cluster cannot be started on this machine ({reason})") from error
        raise SettingsError(
            f"--ray-address {address}: no connection to a Ray cluster ({reason}); start one with ray start --head, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it has a token, or leave out --ray-address and RAY_ADDRESS to "
            "start one for this build"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminate)


def _probe(address: str) -> None:
    """Connect once, because Ray waits for minutes where nothing listens.

    Raises:
        OSError: nothing listens.
        ValueError: the address has no port.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected auto or HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
