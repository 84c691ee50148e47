"""Work with large files: it is watched piece by piece, and ranks that are done wait for one that still moves."""

import hashlib
import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from griffon_train.distributed.process_group import distributed_session
from griffon_train.distributed.watchdog import MARGIN_S
from griffon_train.training.tensor_file import write_tensors

from ...waiting import TIMEOUT_S
from .test_torchrun import free_port

STALL_S = 2.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_of_tensors(dtype: torch.dtype, tmp_path: Path) -> None:
    """safetensors reads it, and progress is reported in pieces: a large tensor, an empty one, a scalar, a slice."""
    large = torch.randn(20 << 20).to(dtype)
    tensors = {"large": large, "none": large[:0], "one": large[0], "grid": large[: 6 * 7].view(6, 7).t()}
    moves: list[None] = []
    path = tmp_path / "tensors.safetensors"
    sha256 = write_tensors(path, tensors, lambda: moves.append(None))
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    read = load_file(path)
    assert set(read) == set(tensors)
    assert all(torch.equal(read[name], tensor) and read[name].dtype == dtype for name, tensor in tensors.items())
    assert len(moves) > len(tensors)


def _rank(rank: int, port: int, imported: Barrier, log: Path) -> None:
    """The first rank is long at it; the other one has nothing to do."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()} | {"DS_ACCELERATOR": "cpu"})
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 2)
    import deepspeed  # noqa: F401 - which may take longer than is allowed here

    imported.wait(TIMEOUT_S)
    with distributed_session("cpu", STALL_S) as ranks:
        with ranks.at_own_pace("writing something large") as moved:
            end = time.monotonic() + STALL_S + 2 * MARGIN_S + 2  # longer than anybody waits for what does not move
            while rank == 0 and time.monotonic() < end:
                time.sleep(0.2)
                moved()
        assert ranks.sums([1.0]) == [2.0], "then they go on together"


def test_ranks_wait_for_one_that_moves(tmp_path: Path) -> None:
    port, context = free_port(), multiprocessing.get_context("spawn")
    imported, logs = context.Barrier(2), [tmp_path / "0.log", tmp_path / "1.log"]
    ranks = [context.Process(target=_rank, args=(rank, port, imported, log)) for rank, log in enumerate(logs)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(TIMEOUT_S)
    output = [log.read_text() for log in logs]
    assert [rank.exitcode for rank in ranks] == [0, 0], output
    assert not any("error" in item for item in output), output
