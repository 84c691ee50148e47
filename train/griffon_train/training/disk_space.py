"""Checks before a run starts that the disk has enough space for its checkpoints and result."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import size
from griffon_train.training.checkpoint_folders import folder_of, partial_ones, steps_there

BYTES_OF_TRAINED = 4 + 4 + 4
"""Size in a checkpoint of a trained weight and of AdamW's two moments, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Disk space that a run needs.

    Attributes:
        checkpoint_bytes: size of a checkpoint.
        checkpoints: highest number of checkpoints at a time: those kept, and the one being written.
        there_bytes: size of existing checkpoints that are kept.
        going_bytes: size of what is deleted before the next checkpoint is written.
        result_bytes: size of the result; 0 if it exists.
    """

    checkpoint_bytes: int
    checkpoints: int
    there_bytes: int = 0
    going_bytes: int = 0
    result_bytes: int = 0


def need_of(run: Path, result: Path, exported: Sequence[torch.Tensor], trained: int, *, keep: int, saves: int) -> Need:
    """Disk space that a run needs.

    Args:
        run: folder of the run, which may not exist yet.
        result: path of the result.
        exported: weights of the result.
        trained: number of trained weights.
        keep: number of checkpoints to keep.
        saves: number of checkpoints that the run writes from its first to its last step.
    """
    sizes = [_bytes_of(folder_of(run, step)) for step in steps_there(run)]
    return Need(
        checkpoint_bytes=BYTES_OF_TRAINED * trained,
        checkpoints=min(keep + 1, saves),
        there_bytes=sum(sizes[-keep:]),
        going_bytes=sum(sizes[:-keep]) + sum(map(_bytes_of, partial_ones(run))),
        result_bytes=0 if result.exists() else sum(each.numel() * each.element_size() for each in exported),
    )


def check_room(run: Path, need: Need) -> tuple[int, str]:
    """Compare the disk space that a run needs with the free space.

    Returns:
        A level and a line to log, which has both; the level is WARNING if the space is too small.

    Raises:
        DataError: there is no space for even one checkpoint.
    """
    there = next(path for path in (run.absolute(), *run.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    free_bytes = usage.free + need.going_bytes
    most_bytes = need.checkpoints * need.checkpoint_bytes
    at_end_bytes = most_bytes - (need.checkpoints > 1) * need.checkpoint_bytes + need.result_bytes
    to_write_bytes = max(0, max(most_bytes, at_end_bytes) - need.there_bytes)
    known = usage.total > 0  # some network file systems report nothing
    if known and free_bytes < need.checkpoint_bytes:
        raise DataError(
            f"{run}: a checkpoint takes about {size(need.checkpoint_bytes)}, but only {size(free_bytes)} are free; "
            "free space, or give an --output-dir on another disk"
        )
    line = (
        f"{run}: a checkpoint takes about {size(need.checkpoint_bytes)}; up to {need.checkpoints:,} of them at a time "
        f"and the result need {size(to_write_bytes)} more, and {size(free_bytes)} are free"
    )
    if known and free_bytes < to_write_bytes:
        fewer = ", or give a smaller --keep" if need.checkpoints > 2 else ""
        return logging.WARNING, f"{line}; free space while it trains{fewer}"
    return logging.INFO, line


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))
