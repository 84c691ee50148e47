"""The local engine: a pool of processes that runs jobs and gives their results as they come.

An engine is anything with `run(function, jobs)`: jobs and results are small and picklable, functions are top-level.
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

Job = TypeVar("Job")
Result = TypeVar("Result")
_WAITING_PER_WORKER = 2  # jobs handed over beyond the running ones: a stop has little to wait for


class LocalPool:
    """A pool of worker processes; a context manager. Leaving it on an error kills what still runs."""

    def __init__(self, workers: int, start_method: str = "spawn") -> None:
        self._window = workers * (1 + _WAITING_PER_WORKER)
        self._executor = ProcessPoolExecutor(
            max_workers=workers,
            mp_context=multiprocessing.get_context(start_method),
            initializer=_start_worker,
        )
        with _interrupts_ignored():  # which the workers inherit: Ctrl-C is the parent's to answer
            for _ in range(workers):  # each starts a process, as none is idle yet
                self._executor.submit(os.getpid)

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            # What a killed worker was writing has a temporary name, which the next build clears away.
            for process in list((self._executor._processes or {}).values()):
                process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """The results of all jobs, in the order in which they are finished.

        Raises:
            DataError: a worker died.
            Exception: whatever a job raised.
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
                "a worker process died (killed, or out of memory); run the command again, with fewer --workers if "
                "memory is short: a build keeps its finished shards"
            ) from None


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where Python takes no signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker() -> None:
    """In a new worker: end with the parent, at once when told to, and keep Pillow's size warnings quiet."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.filterwarnings("ignore", module="PIL")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            parent.join()
        os._exit(1)  # the parent was killed: nobody waits for this work
