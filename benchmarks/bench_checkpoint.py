"""`make bench-checkpoint`: writing a checkpoint, beside dd writing as many bytes to the same disk.

The state is made up: random weights, whose memory stands for AdamW's two moments, too, so that a third of the memory
suffices. The bytes written, hashed and flushed are as many as those of a model of that size. Two dd processes, one for
each rank's file, copy from /dev/zero. Checkpoint and dd take turns.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import click
import orjson
import torch
from common import machine, scratch, word

from griffon_shards.support.processes import end_with_parent
from griffon_shards.support.tables import size, table
from griffon_train.distributed.process_group import ProcessGroup, distributed_session
from griffon_train.training.checkpoints import save
from griffon_train.training.zero_shards import MOMENTS, ParameterShard, ShardedState

_RANKS = 2
_MOST = 1.2
_PARAMETER = 4096 * 4096  # elements, as of a layer's weight


class _State(ShardedState):
    """A rank's share of a model that does not exist."""

    def __init__(self, count: int, rank: int) -> None:
        self.buffers = [torch.rand(count)]
        self.fragments = [
            ParameterShard(
                name=f"{rank}.{start}", start=0, count=min(_PARAMETER, count - start), buffer=0, offset=start
            )
            for start in range(0, count, _PARAMETER)
        ]

    def moments(self, buffer: int) -> Mapping[str, torch.Tensor]:
        return dict.fromkeys(MOMENTS, self.buffers[buffer])

    def steps(self) -> int:
        return 1


@click.command(context_settings={"show_default": True})
@click.option("--millions", type=click.IntRange(1), default=1000, help="Parameters that train, in millions.")
@click.option("--runs", type=click.IntRange(1), default=3, help="Runs of each; medians count.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the files.  [default: this disk]")
def main(millions: int, runs: int, folder: Path | None) -> None:
    """Measure how long a checkpoint takes on two ranks."""
    if "RANK" in os.environ:
        assert folder is not None
        _rank(millions * 10**6 // _RANKS, runs, folder)
        return
    with scratch(folder, keep=False) as own:
        click.echo(machine(own))
        times = _times(millions, runs, own)
    written = times["bytes"][0]
    rows = [
        (what, *(f"{median(seconds):.1f} s", f"{min(seconds):.1f} to {max(seconds):.1f} s"), f"{rate}/s")
        for what, seconds in (("checkpoint", times["save"]), ("dd conv=fsync", times["dd"]))
        for rate in [size(written / median(seconds))]
    ]
    click.echo(table((f"{size(written)}, {_RANKS} ranks", "median", "range", "rate"), rows))
    ratio = median(times["save"]) / median(times["dd"])
    click.echo(f"checkpoint over dd: {ratio:.2f}, wanted at most {_MOST}: {word(ratio <= _MOST)}")


def _times(millions: int, runs: int, own: Path) -> Mapping[str, list[float]]:
    """Start the ranks; return the first one's figures: seconds of every `save` and every `dd`, and the `bytes`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--millions", str(millions), "--runs", str(runs), "--folder", str(own)]
    common = {**os.environ, "WORLD_SIZE": str(_RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(command, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE)
        for rank in range(_RANKS)
    ]
    output, *_ = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        raise click.ClickException("a rank has failed")
    figures: Mapping[str, list[float]] = orjson.loads(output)
    return figures


def _rank(count: int, runs: int, folder: Path) -> None:
    end_with_parent()
    figures: dict[str, list[float]] = {"save": [], "dd": [], "bytes": []}
    with distributed_session("cpu", 600) as ranks:
        state = _State(count, ranks.rank)
        for run in range(runs):
            began = _together(ranks)
            path = save(folder / "run", run, state, {}, ranks)
            figures["save"].append(_together(ranks) - began)
            file = path / f"rank-{ranks.rank:05d}.safetensors"
            figures["bytes"] += ranks.sums([file.stat().st_size])
            _together(ranks)
            if ranks.first:
                shutil.rmtree(path)
            began = _together(ranks)
            _dd(folder / f"dd-{ranks.rank}", 3 * 4 * count)
            figures["dd"].append(_together(ranks) - began)
            (folder / f"dd-{ranks.rank}").unlink()
    if ranks.first:
        click.echo(orjson.dumps(figures))


def _together(ranks: ProcessGroup) -> float:
    """Wait for all ranks; return the time."""
    ranks.highest(0)
    return time.perf_counter()


def _dd(path: Path, count_bytes: int) -> None:
    """Write so many bytes into a file."""
    sizes = [f"count={count_bytes}", "iflag=count_bytes,fullblock", "bs=16M"]
    subprocess.run(["dd", "if=/dev/zero", f"of={path}", *sizes, "conv=fsync", "status=none"], check=True)


if __name__ == "__main__":
    main()
