"""The local engine: a pool of processes that runs jobs and returns results as they are finished.

An engine is any object with `run(function, jobs)`. Jobs and results are small and picklable; functions are top-level.
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
from typing import TypeVar

from griffon_shards.support.errors import DataError
from griffon_shards.support.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
_WAITING_PER_WORKER = 2  # queued jobs beyond the running ones; few, so that stopping is quick


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
        self._window = workers * (1 + _WAITING_PER_WORKER)
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
        waiting = iter(jobs)
        running: set[Future[Result]] = set()
        try:
            while True:
                for job in waiting:
                    running.add(self._executor.submit(function, job))
                    if len(running) >= self._window:
                        break
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
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
