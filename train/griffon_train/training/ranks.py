"""The processes that train together: who this one is, what it computes on, and sums over all of them."""

import io
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from transformers.utils.logging import disable_progress_bar

from griffon_shards.errors import DataError, SettingsError
from griffon_train.processes import end_with_parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those of the run."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one speaks for all."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks, in float64."""
        given = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(given)
        return [float(each) for each in given.tolist()]

    def agreed(self, told: str | None) -> None:
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
def joined(wanted_device: str, stall_s: float) -> Iterator[Ranks]:
    """Join the other processes that torchrun or DeepSpeed has started; alone, where there are none.

    Args:
        wanted_device: `auto`, `cpu` or `cuda`.
        stall_s: how long a rank waits for the others before it ends with an error.

    Raises:
        SettingsError: there is no such device.
        DataError: another rank has ended in the middle of something.
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
    import deepspeed  # the accelerator is chosen as it is imported

    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()  # else a torchrun that is killed leaves ranks behind, and the next one meets them
    with redirect_stdout(io.StringIO()):  # it prints what it has compiled, on every rank
        deepspeed.init_distributed(
            dist_backend="nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=stall_s), verbose=False
        )
    ranks = Ranks(rank=distributed.get_rank(), world_size=distributed.get_world_size(), device=device)
    try:
        yield ranks
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        raise DataError(f"rank {ranks.rank}: another rank has ended, see what it said") from None
    distributed.destroy_process_group()


def _is_of_others(error: RuntimeError) -> bool:
    """Whether it says that a collective could not be finished because somebody was gone."""
    told = str(error)
    return isinstance(error, distributed.DistError) or "gloo" in told or "Connection closed by peer" in told


def _alone_if_not_launched() -> None:
    if "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in alone.items()})


def _quiet() -> None:
    """What the libraries say on every rank and every call, and nobody can do anything about."""
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.modeling_utils")
    disable_progress_bar()
