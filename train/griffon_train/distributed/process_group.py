"""The processes that train together: this one's rank and device, and the collectives over all of them."""

import logging
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from transformers.utils.logging import disable_progress_bar, set_tqdm_hook

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.processes import end_with_parent
from griffon_train.distributed.signals import Requests, Stopped
from griffon_train.distributed.watchdog import MARGIN_S, Watchdog

_log = logging.getLogger(__name__)

_MEET_EVERY_S = 10.0  # how often ranks synchronize while each works on large files


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """This process among those of the run, and the collectives over all of them.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        device: device of this process.
        watchdog: ends this process if it makes no progress for too long.
        requests: requests to stop or save that this process received.
    """

    rank: int
    world_size: int
    device: torch.device
    watchdog: Watchdog
    requests: Requests

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which logs and writes files for all."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, in float64."""
        given = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(given)
        return [float(total) for total in given.tolist()]

    def raise_if_any(self, problem: str | None, error: type[DataError | SettingsError] = SettingsError) -> None:
        """Raise the first problem that any rank has. Every rank calls this, so all of them raise or none does.

        Args:
            problem: message of this rank, or None.
            error: type to raise.

        Raises:
            SettingsError: a rank has a problem; or `error`.
        """
        for message in self.gathered(problem):
            if message is not None:
                raise error(message)

    def gathered(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever pickles
        """Every rank's value, in rank order."""
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def highest(self, *values: int) -> list[int]:
        """The maximum of each value over all ranks."""
        if self.world_size == 1:  # avoids synchronizing with the device
            return list(values)
        given = torch.tensor(values, device=self.device)
        distributed.all_reduce(given, op=distributed.ReduceOp.MAX)
        return [int(highest) for highest in given.tolist()]

    def asked_to_stop(self, patience_s: float) -> bool:
        """Wait up to `patience_s` for a request to stop; return whether there is one. For use while awaiting data."""
        self.watchdog.feed()
        return self.requests.await_stop(patience_s)

    def go_on(self) -> None:
        """Raise if any rank was asked to stop. Every rank calls this, so all of them raise or none does.

        Raises:
            Stopped: a rank was asked to stop.
        """
        (number,) = self.highest(self.requests.stop)
        self.watchdog.feed()
        if number:
            raise Stopped(number)

    @contextmanager
    def at_own_pace(self, doing: str) -> Iterator[Callable[[], None]]:
        """Let each rank work on large files for as long as it takes, then wait for all ranks.

        No rank waits longer than `stall_s` for one that makes no progress. The work must contain no collectives.

        Args:
            doing: description of the work, for the watchdog's message.

        Yields:
            A function to call after each unit of progress: a tensor, or some megabytes.
        """
        met_s = time.monotonic()

        def moved() -> None:
            nonlocal met_s
            self.watchdog.feed()
            if time.monotonic() - met_s > min(_MEET_EVERY_S, self.watchdog.stall_s / 4):
                self.highest(1)
                self.watchdog.feed()
                met_s = time.monotonic()

        self.watchdog.now(doing)
        yield moved
        while self.highest(0) != [0]:
            self.watchdog.feed()


def device_of(wanted: str) -> torch.device:
    """The device of this process.

    Args:
        wanted: `auto`, `cpu` or `cuda`.

    Raises:
        SettingsError: `cuda` is wanted and there is no CUDA device.
    """
    cuda = torch.cuda.is_available()
    if wanted == "cuda" and not cuda:
        raise SettingsError("--device cuda: this machine has no CUDA device; use --device cpu to train on the CPU")
    if wanted == "cpu" or not cuda:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def distributed_session(wanted_device: str, stall_s: float, requests: Requests | None = None) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun or DeepSpeed started, or run as a single process.

    Args:
        wanted_device: `auto`, `cpu` or `cuda`.
        stall_s: seconds without progress after which a rank ends with an error.
        requests: requests to stop or save that this process receives; none by default.

    Raises:
        SettingsError: there is no such device.
        DataError: the ranks cannot reach each other, or another rank ended unexpectedly.
    """
    device = device_of(wanted_device)
    _prepare(device)
    alone = _alone_if_not_launched()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    watchdog = Watchdog(rank, stall_s)
    together = world_size == 1  # after an error, other ranks may not answer
    try:
        _join(device, watchdog, rank, world_size)
        try:
            yield ProcessGroup(
                rank=rank,
                world_size=world_size,
                device=device,
                watchdog=watchdog,
                requests=requests or Requests(),
            )
            together = True
        except SystemExit:  # all ranks stop together
            together = True
            raise
        finally:
            if together:
                distributed.destroy_process_group()
    except RuntimeError as error:
        problem = _communication_problem(error)
        if problem is None:
            raise
        raise DataError(f"rank {rank}{problem}") from None
    finally:
        watchdog.close()
        for name in alone:
            del os.environ[name]


def _prepare(device: torch.device) -> None:
    """Set up the device, the environment and the messages of libraries, before DeepSpeed is imported."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's workers tokenize in parallel already
    _quiet()


def _join(device: torch.device, watchdog: Watchdog, rank: int, world_size: int) -> None:
    """Join the process group, in torch and in DeepSpeed."""
    import deepspeed  # importing it selects the accelerator

    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()  # else ranks survive a killed torchrun and collide with those of the next one
    watchdog.now("joining the other ranks")
    _warn_of_restarts(rank)
    if device.type == "cpu":
        # DeepSpeed would compile a kernel for reductions in shared memory; gloo does them without.
        deepspeed.ops.__compatible_ops__ = {}
    timeout = timedelta(seconds=watchdog.stall_s + 2 * MARGIN_S)  # the watchdog fires first: its message says more
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(
        backend,
        store=_store(timeout),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" and world_size > 1 else None,
    )
    deepspeed.init_distributed(backend, timeout=timeout, verbose=False)


def _store(timeout: timedelta) -> Any:  # noqa: ANN401 - torch's, whose name it does not export
    """The store through which the ranks find each other.

    torchrun keeps one store across all its `--max-restarts`, so each restart needs a prefix of its own, or ranks would
    find the addresses of their predecessors. On several machines the ranks share no number that identifies a restart.
    """
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return PrefixStore(f"restart {restart}", store)


def _warn_of_restarts(rank: int) -> None:
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if rank == 0 and several and restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        _log.warning(
            "torchrun --max-restarts on several machines: restarted ranks may connect to addresses of the previous "
            "attempt and hang; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on every machine"
        )


_GONE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|failed to recv|remote process exited", re.IGNORECASE
)
"""Messages of gloo, NCCL and the store when the peer is gone."""


def _communication_problem(error: RuntimeError) -> str | None:
    """A message if the error is about communication between ranks, else None."""
    message = str(error).strip()
    if _GONE.search(message):
        return ": another rank has ended; see its error message"
    if isinstance(error, distributed.DistError) or "gloo" in message:
        return f" cannot exchange data with the others: {message}"
    return None


def _alone_if_not_launched() -> Mapping[str, object]:
    """Put into the environment what a launcher would, if none did; return what was put there."""
    if "RANK" in os.environ:
        return {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in alone.items()})
    return alone


@contextmanager
def transformers_progress(moved: Callable[[], None]) -> Iterator[None]:
    """Call `moved` for each tensor or file that transformers reads or writes, by hooking its progress bars."""

    def watched(make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        return make(_counted(given[0], moved), *given[1:], **named) if given else make(*given, **named)

    before = set_tqdm_hook(watched)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _counted(items: Iterable[Any], moved: Callable[[], None]) -> Iterator[Any]:
    for item in items:
        moved()
        yield item


def _quiet() -> None:
    """Silence library messages that appear on every rank or call and that users cannot act on."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.modeling_utils")
    disable_progress_bar()
