"""Faults for tests to make in a set, and a look at the processes that a command leaves behind."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from griffon_shards.frozen_set import open_set
from griffon_train.data.plan import Plan

from ..waiting import TIMEOUT_S


def shard_of(root: Path, row: int) -> Path:
    frozen = open_set(root)
    return root / frozen.lock.shards[int(frozen.index[row]["shard"])].name


def late_shard(plan: Plan) -> tuple[int, int]:
    """The step that is the first to open a shard, of the one opened last; and the only row of it in that step."""
    first: dict[int, tuple[int, int]] = {}
    for i in range(20):
        rows = plan.step(i).rows.tolist()
        shards = plan.sets[0].index["shard"][rows].tolist()
        for row, shard in zip(rows, shards, strict=True):
            if shard not in first and shards.count(shard) == 1:
                first[shard] = i, row
            first.setdefault(shard, (-1, -1))
    return max(first.values())


def flip_bit(root: Path, row: int, offset: float = 0.5) -> str:
    """Flip a bit in the middle of a sample, or elsewhere in it; what a message has to name is given back."""
    frozen, shard = open_set(root), shard_of(root, row)
    raw = bytearray(shard.read_bytes())
    raw[int(frozen.index[row]["offset"]) + int(offset * int(frozen.index[row]["bytes"]))] ^= 4
    shard.write_bytes(raw)
    return frozen.where(row)


def cut_short(root: Path, row: int) -> str:
    """End a shard in the middle of a sample."""
    frozen, shard = open_set(root), shard_of(root, row)
    entry = frozen.index[row]
    shard.write_bytes(shard.read_bytes()[: int(entry["offset"]) + int(entry["bytes"]) // 2])
    return frozen.where(row)


def remove(root: Path, row: int) -> str:
    """Remove a sample's shard."""
    shard_of(root, row).unlink()
    return open_set(root).where(row)


def stall(root: Path, row: int) -> str:
    """Put a pipe that nobody writes to in the place of a shard: opening it never ends, as on a disk that hangs."""
    where = remove(root, row)
    os.mkfifo(shard_of(root, row))
    return where


def _processes() -> Iterator[tuple[int, int, int, int]]:
    """Number, parent, session and start time of all processes but zombies."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            if state != "Z":
                yield int(entry.name), int(fields[0]), int(fields[2]), int(fields[18])


def children_of(parent: int) -> list[int]:
    """The children of a process, oldest first."""
    result = [(start, process) for process, of, _, start in _processes() if of == parent]
    return [process for _, process in sorted(result)]


def left_over(session: int, patience_s: float = TIMEOUT_S) -> list[int]:
    """Return the processes left in a session of `Popen(start_new_session=True)`; those that are ending get time."""
    end = time.monotonic() + patience_s
    while (result := [process for process, _, of, _ in _processes() if of == session]) and time.monotonic() < end:
        time.sleep(0.05)
    return result
