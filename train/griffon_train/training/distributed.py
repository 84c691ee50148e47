"""The processes that train together: who this one is, what it computes on, and sums over all of them."""

import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import click
import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from transformers.utils.logging import disable_progress_bar, set_tqdm_hook

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.data.worker_process import end_with_parent
from griffon_train.training.signals import Requests, Stopped
from griffon_train.training.watchdog import MARGIN_S, Watchdog

_MEET_EVERY_S = 10.0  # while each is busy with large files


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """This process among those of the run.

    Attributes:
        rank: its number.
        world_size: how many there are.
        device: that it computes on.
        watchdog: ends this process if nothing moves for too long.
        requests: what this process was asked for from outside.
    """

    rank: int
    world_size: int
    device: torch.device
    watchdog: Watchdog
    requests: Requests

    @property
    def first(self) -> bool:
        """Whether this one speaks for all."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, in float64."""
        given = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(given)
        return [float(each) for each in given.tolist()]

    def raise_if_any(self, told: str | None) -> None:
        """See that no rank has anything to object to; every rank calls it, and all raise the first objection.

        Raises:
            SettingsError: a rank has.
        """
        for each in self.gathered(told):
            if each is not None:
                raise SettingsError(each)

    def gathered(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever pickles
        """Every rank's value, in order of ranks."""
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def highest(self, *values: int) -> list[int]:
        """The highest of each value over all ranks."""
        if self.world_size == 1:  # a device need not be done with its work then
            return list(values)
        given = torch.tensor(values, device=self.device)
        distributed.all_reduce(given, op=distributed.ReduceOp.MAX)
        return [int(each) for each in given.tolist()]

    def asked_to_stop(self, patience_s: float) -> bool:
        """Whether this rank is to stop, or is told so within some seconds. To be asked while data are awaited."""
        self.watchdog.feed()
        return self.requests.await_stop(patience_s)

    def go_on(self) -> None:
        """Go on unless a rank was asked to stop; every rank calls it.

        Raises:
            Stopped: one was.
        """
        (number,) = self.highest(self.requests.stop)
        self.watchdog.feed()
        if number:
            raise Stopped(number)

    @contextmanager
    def at_own_pace(self, doing: str) -> Iterator[Callable[[], None]]:
        """A piece of work with large files, which takes each rank as long as it takes; then they wait for each other.

        Nobody waits longer than `stall_s` for a rank that does not move. There must be no collective within.

        Args:
            doing: what it is, for the message.

        Yields:
            To be called whenever something has moved: a tensor, or some megabytes.
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
    """The device of this process: `auto`, `cpu` or `cuda`.

    Raises:
        SettingsError: there is no CUDA device, and one is asked for.
    """
    cuda = torch.cuda.is_available()
    if wanted == "cuda" and not cuda:
        raise SettingsError("--device cuda: this machine has no CUDA device; take --device cpu to train on the CPU")
    if wanted == "cpu" or not cuda:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def distributed_session(wanted_device: str, stall_s: float, requests: Requests | None = None) -> Iterator[ProcessGroup]:
    """Join the other processes that torchrun or DeepSpeed has started; alone, where there are none.

    Args:
        wanted_device: `auto`, `cpu` or `cuda`.
        stall_s: how long nothing may move before a rank ends with an error.
        requests: what this process is asked for from outside; without them nobody asks.

    Raises:
        SettingsError: there is no such device.
        DataError: the ranks cannot reach each other, or another one has ended in the middle of something.
    """
    device = device_of(wanted_device)
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    else:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's workers are the parallelism
    _alone_if_not_launched()
    _quiet()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    watchdog = Watchdog(rank, stall_s)
    try:
        import deepspeed  # the accelerator is chosen as it is imported

        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()  # else a torchrun that is killed leaves ranks behind, and the next one meets them
        watchdog.now("joining the other ranks")
        _warn_of_restarts(rank)
        if device.type == "cpu":
            # What it would compile at its first start on a machine, to add up numbers in shared memory; gloo does it.
            deepspeed.ops.__compatible_ops__ = {}
        timeout = timedelta(seconds=stall_s + 2 * MARGIN_S)  # the watchdog knows more to say
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
        yield ProcessGroup(
            rank=rank,
            world_size=world_size,
            device=device,
            watchdog=watchdog,
            requests=requests or Requests(),
        )
        distributed.destroy_process_group()
    except RuntimeError as error:
        told = _of_communication(error)
        if told is None:
            raise
        raise DataError(f"rank {rank}{told}") from None
    finally:
        watchdog.close()


def _store(timeout: timedelta) -> Any:  # noqa: ANN401 - torch's, whose name it does not export
    """Where the ranks find each other.

    torchrun keeps one for all its `--max-restarts`; ranks that look into it must not find the addresses of those that
    were before them. On several machines nothing that all ranks know tells the restarts apart.
    """
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return PrefixStore(f"restart {restart}", store)


def _warn_of_restarts(rank: int) -> None:
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if rank == 0 and several and restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        click.echo(
            "torchrun --max-restarts on several machines: restarted ranks may look for those that were before them and "
            "hang; set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 where torchrun is started, on every machine",
            err=True,
        )


_GONE = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|Socket closed|failed to recv|remote process exited", re.IGNORECASE
)
"""What gloo, NCCL and the store say when the other side is no longer there."""


def _of_communication(error: RuntimeError) -> str | None:
    """What an error says of the exchange between ranks, or None where it is about something else."""
    told = str(error).strip()
    if _GONE.search(told):
        return ": another rank has ended, see what it said"
    if isinstance(error, distributed.DistError) or "gloo" in told:
        return f" cannot exchange data with the others: {told}"
    return None


def _alone_if_not_launched() -> None:
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in alone.items()})


@contextmanager
def told_by_transformers(moved: Callable[[], None]) -> Iterator[None]:
    """Call `moved` for each tensor or file that transformers reads or writes, which it tells its progress bars."""

    def watched(make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401
        return make(_each(given[0], moved), *given[1:], **named) if given else make(*given, **named)

    before = set_tqdm_hook(watched)
    try:
        yield
    finally:
        set_tqdm_hook(before)


def _each(items: Iterable[Any], moved: Callable[[], None]) -> Iterator[Any]:
    for item in items:
        moved()
        yield item


def _quiet() -> None:
    """What the libraries say on every rank and every call, and nobody can do anything about."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.modeling_utils")
    disable_progress_bar()
