"""Room on disk for what a run will write, looked at before it begins and not when days of training are at stake."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import size
from griffon_train.training.checkpoint_folders import folder_of, partial_ones, steps_there

_BYTES_OF_TRAINED = 4 + 4 + 4  # the weight and AdamW's two moments, in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a run is to write.

    Attributes:
        checkpoint_bytes: of each checkpoint.
        checkpoints: how many there will be at once: those that are kept, and one that is written.
        there_bytes: of those that are there already.
        going_bytes: of what will be deleted before the next one is written.
        result_bytes: of what comes out at the end, unless it is there.
    """

    checkpoint_bytes: int
    checkpoints: int
    there_bytes: int = 0
    going_bytes: int = 0
    result_bytes: int = 0


def need_of(run: Path, result: Path, exported: Sequence[nn.Parameter], trained: int, *, keep: int, saves: int) -> Need:
    """What a run is to write.

    Args:
        run: its folder, which need not be there.
        result: what it is to end with, in that folder.
        exported: the weights of the result.
        trained: how many weights train.
        keep: checkpoints to keep.
        saves: checkpoints that the whole run will write, those that it has written among them.
    """
    sizes = [_bytes_of(folder_of(run, step)) for step in steps_there(run)]
    return Need(
        checkpoint_bytes=_BYTES_OF_TRAINED * trained,
        checkpoints=min(keep + 1, saves),
        there_bytes=sum(sizes[-keep:]),
        going_bytes=sum(sizes[:-keep]) + sum(map(_bytes_of, partial_ones(run))),
        result_bytes=0 if result.exists() else sum(each.numel() * each.element_size() for each in exported),
    )


def check_room(run: Path, need: Need) -> str:
    """Compare what a run is to write with the room that there is.

    Returns:
        Both, in a line.

    Raises:
        DataError: there is no room for even one checkpoint.
    """
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    free_bytes = usage.free + need.going_bytes
    most_bytes = need.checkpoints * need.checkpoint_bytes
    at_end_bytes = most_bytes - (need.checkpoints > 1) * need.checkpoint_bytes + need.result_bytes
    to_write_bytes = max(0, max(most_bytes, at_end_bytes) - need.there_bytes)
    known = usage.total > 0  # some network file systems do not say
    if known and free_bytes < need.checkpoint_bytes:
        raise DataError(
            f"{run}: a checkpoint takes about {size(need.checkpoint_bytes)}, and {size(free_bytes)} are free; make "
            "room, or give an --output-dir elsewhere"
        )
    line = (
        f"{run}: a checkpoint takes about {size(need.checkpoint_bytes)}; with up to {need.checkpoints:,} of them at "
        f"once and the result, {size(to_write_bytes)} are to be written, and {size(free_bytes)} are free"
    )
    if known and free_bytes < to_write_bytes:
        fewer = ", or give a smaller --keep" if need.checkpoints > 2 else ""
        return f"warning: {line}; make room while it trains{fewer}"
    return line


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
