"""Engines run jobs and return results as they are finished. The local one is a pool of processes.

Jobs and results are small and picklable; functions are top-level.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol, Self, TypeVar

from griffon_shards.support.errors import DataError
from griffon_shards.support.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
Task = TypeVar("Task")
_WAITING_PER_WORKER = 2  # queued jobs beyond the running ones; few, so that stopping is quick


class Engine(Protocol):
    """A context manager that runs jobs. If it is left with an error, running jobs are abandoned."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the results of all jobs, in any order.

        Raises:
            DataError: workers were lost, and the job cannot be run again.
            Exception: any exception raised by a job.
        """
        ...


def window_of(workers: int) -> int:
    """The number of jobs to submit at a time, so that no worker is idle."""
    return workers * (1 + _WAITING_PER_WORKER)


def run_in_window(
    submit: Callable[[Job], Task],
    collect: Callable[[list[Task]], tuple[Iterable[Result], Iterable[Task]]],
    jobs: Iterable[Job],
    window: int,
) -> Iterator[Result]:
    """Run jobs, at most `window` of them submitted at a time. Yields results in the order in which they finish.

    Args:
        submit: starts a job, and returns a handle.
        collect: waits until at least one of several handles is finished; returns results, and the handles of jobs that
            are still running.
        jobs: the jobs. They are drawn as there is room for them.
        window: maximum number of submitted jobs.
    """
    waiting = iter(jobs)
    running: list[Task] = []
    while True:
        running += map(submit, islice(waiting, window - len(running)))
        if not running:
            return
        results, still_running = collect(running)
        yield from results
        running = list(still_running)


def run_futures(
    submit: Callable[[Job], Future[Result]],
    jobs: Iterable[Job],
    window: int,
    result_of: Callable[[Future[Result]], Result] = Future.result,
) -> Iterator[Result]:
    """`run_in_window` for jobs whose handles are futures. `result_of` returns the result of a finished one."""

    def collect(running: list[Future[Result]]) -> tuple[Iterable[Result], Iterable[Future[Result]]]:
        done, still_running = wait(running, return_when=FIRST_COMPLETED)
        return map(result_of, done), still_running

    return run_in_window(submit, collect, jobs, window)


class InProcess:
    """The engine of one worker: this process."""

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing has to be stopped."""

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the results of all jobs in order."""
        return map(function, jobs)


class LocalPool:
    """A context manager for a pool of worker processes. On an error the running workers are killed."""

    def __init__(self, workers: int, start_method: str = "spawn") -> None:
        self._window = window_of(workers)
        self._executor = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context(start_method),
            initializer=_start_worker,
        )
        with _interrupts_ignored():  # inherited by the workers: the parent handles Ctrl-C
            for _ in range(workers):  # each submit starts a process, as none is idle yet
                self._executor.submit(os.getpid)

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # Files that a killed worker was writing have temporary names and are removed by the next build.
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the results of all jobs in the order in which they finish.

        Raises:
            DataError: a worker was killed.
            Exception: any exception raised by a job.
        """

        def submit(job: Job) -> Future[Result]:
            return self._executor.submit(function, job)

        try:
            yield from run_futures(submit, jobs, self._window)
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, possibly for lack of memory; rerun the same command, "
                "with fewer --workers if memory is low"
            ) from None


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python handles signals only there
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    """Initialize a worker: exit with the parent, exit at once on SIGTERM, suppress Pillow's size warnings."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.filterwarnings("ignore", module="PIL")
    end_with_parent()
