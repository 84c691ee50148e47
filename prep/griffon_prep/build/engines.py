"""The engines of a build: `--engine local`, `--engine ray`, and `--engine MODULE:FACTORY` for any other executor."""

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from functools import partial
from typing import Any, Self
from weakref import WeakSet

from griffon_prep.build.settings import BuildSettings
from griffon_prep.build.worker_call import WorkerCall, package_versions
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.processes import available_cores
from griffon_shards.support.worker_pool import Engine, Job, LocalPool, Result, run_futures, window_of

_log = logging.getLogger(__name__)

LOCAL = "local"
RAY = "ray"


def open_engine(settings: BuildSettings) -> Engine:
    """Start the engine that the settings name.

    Raises:
        SettingsError: it cannot be started.
    """
    return find_engine(settings)()


def find_engine(settings: BuildSettings) -> Callable[[], Engine]:
    """Return what starts the engine that the settings name.

    Raises:
        SettingsError: there is no such engine, or its package is missing.
    """
    name, address = settings.engine, settings.ray_address
    if address is not None and name != RAY:
        raise SettingsError(f"--ray-address {address}: only for --engine ray; add it, or leave --ray-address out")
    if name == RAY:
        if address in (None, "auto"):
            address = os.environ.get("RAY_ADDRESS") or address
        return _ray_engine(settings.workers, address)
    workers = settings.workers or available_cores()
    if name == LOCAL:
        return partial(LocalPool, workers, settings.start_method)
    return partial(ExecutorEngine, name, _factory(name), workers)


def _ray_engine(workers: int | None, address: str | None) -> Callable[[], Engine]:
    if importlib.util.find_spec("ray") is None:
        raise SettingsError("--engine ray: the package ray is missing; run pip install 'griffon-pipeline[ray]'")
    if address is not None and "://" in address:
        raise SettingsError(
            f"--ray-address {address}: Ray Client is not supported; run the command on a machine of the cluster, with "
            "--ray-address auto"
        )
    from griffon_prep.build.ray_engine import RayEngine  # only here, because the package is optional

    return partial(RayEngine, workers, address)


def _factory(name: str) -> Callable[[int], object]:
    """Import the factory that MODULE:FACTORY names.

    Raises:
        SettingsError: it cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"--engine {name}: expected local, ray or MODULE:FACTORY, for example my_cluster:executor")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SettingsError(
            f"--engine {name}: {error}; install the module, or add its folder to PYTHONPATH (PYTHONPATH=. for the "
            "current folder)"
        ) from None
    factory: Callable[[int], object] | None = getattr(module, attribute, None)
    if not callable(factory):
        raise SettingsError(f"--engine {name}: the module {module_name} has no function or class {attribute}")
    return factory


class ExecutorEngine:
    """Runs jobs in an executor that a user's factory makes. The executor is shut down at the end."""

    def __init__(self, name: str, factory: Callable[[int], object], workers: int) -> None:
        """Make the executor.

        Args:
            name: the option's value, for messages.
            factory: is called with the number of workers.
            workers: number of jobs that run at once.

        Raises:
            SettingsError: the factory fails, or makes no executor.
        """
        try:
            executor = factory(workers)
        except (SettingsError, DataError):
            raise
        except Exception as error:
            _log.debug(f"--engine {name}: the factory failed", exc_info=True)
            raise SettingsError(f"--engine {name}: the factory failed ({_reason(error)}); -v shows where") from error
        if not isinstance(executor, Executor):
            raise SettingsError(
                f"--engine {name}: returned {type(executor).__name__}, expected a concurrent.futures.Executor"
            )
        self._name, self._executor, self._window = name, executor, window_of(workers)
        self._futures: WeakSet[Future[Any]] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for future in list(self._futures):  # not all executors have `cancel_futures`
            future.cancel()
        self._executor.shutdown(wait=kind is None)

    def run(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Yield the results of all jobs in the order in which they finish.

        Raises:
            DataError: the executor failed.
            Exception: any exception raised by a job.
        """
        call = WorkerCall(function=function, versions=package_versions())

        def submit(job: Job) -> Future[Result]:
            try:
                future = self._executor.submit(call, job)
            except (SettingsError, DataError):  # of an executor that runs the job at once
                raise
            except Exception as error:
                _log.debug(f"--engine {self._name}: the executor takes no job", exc_info=True)
                raise self._failure(error) from error
            self._futures.add(future)
            return future

        try:
            yield from run_futures(submit, jobs, self._window, self._result_of)
        except BrokenExecutor as error:
            raise self._failure(error) from None

    def _result_of(self, future: Future[Result]) -> Result:
        if future.cancelled():
            raise self._failure(CancelledError("the executor has cancelled a job"))
        error = future.exception()
        if error is not None and _package_of(error) == _package_of(self._executor):  # such as a lost worker
            raise self._failure(error)
        return future.result()

    def _failure(self, error: BaseException) -> DataError:
        return DataError(
            f"--engine {self._name}: the executor failed ({_reason(error)}); rerun the same command to resume"
        )


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _package_of(value: object) -> str:
    return type(value).__module__.partition(".")[0]
