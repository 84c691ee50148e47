"""Checkpoints that know no world size: each rank writes its pieces of weights and moments, any ranks read them.

A checkpoint is a folder that gets its name when it is whole: every rank's file, then `checkpoint.json`, which says what
stands where, then one rename. DeepSpeed's universal checkpoint is not used: from two ranks to one it comes back wrong
without an error (frozen weights random, learning rates of other groups).
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import TEMPORARY_PREFIX, sync_folder, write_whole
from griffon_train.training.checkpoint_folders import (
    FORMAT,
    INDEX,
    TrainingCheckpoint,
    folder_of,
    removed,
    sha256_of_index,
)
from griffon_train.training.distributed import ProcessGroup
from griffon_train.training.tensor_file import write_tensors
from griffon_train.training.zero_shards import MOMENTS, ParameterShard, ShardedState

_KINDS = ("weight", *MOMENTS)


def save(run: Path, step: int, state: ShardedState, extra: Mapping[str, Any], ranks: ProcessGroup) -> Path:
    """Write a checkpoint, together with all ranks.

    Args:
        run: folder of the run, shared by all machines.
        step: steps taken by the optimizer.
        state: of this rank.
        extra: whatever else `checkpoint.json` is to hold.
        ranks: all of them.

    Returns:
        The checkpoint's folder.

    Raises:
        DataError: a rank could not write; every rank raises it, and nothing has changed.
    """
    target = folder_of(run, step)
    incomplete = target.with_name(TEMPORARY_PREFIX + target.name)
    together = partial(_together, ranks, step)
    try:
        together(lambda _: _made_anew(incomplete) if ranks.first else None)
        files = together(lambda moved: _write_own(incomplete / f"rank-{ranks.rank:05d}.safetensors", state, moved))
        index = {"format": FORMAT, "step": step, "optimizer_steps": state.steps(), "files": files, **extra}
        together(lambda _: _complete(incomplete, target, index) if ranks.first else None)
    except DataError:
        if ranks.first:  # a disk that is full has no room for what cannot be used
            shutil.rmtree(incomplete, ignore_errors=True)
        raise
    return target


def _together(ranks: ProcessGroup, step: int, work: Callable[[Callable[[], None]], Any]) -> list[Any]:
    """What each rank's work gives, in order of ranks; if one fails, all say so."""
    told: dict[str, Any] = {}
    with ranks.at_own_pace(f"writing a checkpoint after {step} steps") as moved:
        try:
            told["done"] = work(moved)
        except OSError as error:
            told["failed"] = f"rank {ranks.rank}: {error}"
    everybody = ranks.gathered(told)
    failures = [each["failed"] for each in everybody if "failed" in each]
    if failures:
        raise DataError(f"no checkpoint was written at step {step}: {'; '.join(failures)}")
    return [each["done"] for each in everybody]


def _made_anew(partial: Path) -> None:
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)


def _complete(incomplete: Path, target: Path, index: Mapping[str, Any]) -> None:
    """Write what says where everything is, and give the folder its name."""
    write_whole(incomplete / INDEX, orjson.dumps({**index, "sha256": sha256_of_index(index)}))
    if target.is_dir():  # put there since the run began to go on
        removed(target)
    incomplete.rename(target)
    sync_folder(target.parent)


def _write_own(path: Path, state: ShardedState, moved: Callable[[], None]) -> Mapping[str, Any]:
    tensors = {}
    for number, flat in enumerate(state.buffers):
        tensors[f"{number}.weight"] = flat.data
        for name, moment in state.moments(number).items():
            tensors[f"{number}.{name}"] = moment
    sha256 = write_tensors(path, tensors, moved)
    fragments = [list(asdict(each).values()) for each in state.fragments]
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256, "fragments": fragments}


def restore(checkpoint: TrainingCheckpoint, state: ShardedState, sizes: Mapping[str, int], ranks: ProcessGroup) -> None:
    """Put a checkpoint's weights and moments into the engine, together with all ranks, and compare.

    Args:
        checkpoint: a whole one.
        state: of this rank.
        sizes: elements of every parameter that trains.
        ranks: all of them.

    Raises:
        DataError: the checkpoint is not of these parameters.
    """
    pieces = _pieces(checkpoint)
    held = {name: sum(count for _, count, *_ in of_name) for name, of_name in pieces.items()}
    if held != dict(sizes):
        different = sorted(name for name in {**held, **sizes} if held.get(name) != sizes.get(name))
        raise DataError(
            f"{checkpoint.path} is of other parameters than train now, such as {', '.join(different[:3])} "
            f"({len(different)} in all); resume with the model and freezing flags that the run had"
        )
    with ranks.at_own_pace(f"reading {checkpoint.path}") as moved, _Files(checkpoint) as files:
        for each in state.fragments:
            _fill(each, state, pieces[each.name], files)
            moved()
    state.set_steps(int(checkpoint.index["optimizer_steps"]))
    state.weights_to_model()
    wrong = state.differing()
    if wrong:
        raise DataError(f"{checkpoint.path}: {', '.join(wrong[:3])} did not come back as saved; nothing was trained")


_Piece = tuple[int, int, int, int, int]
"""Start, count, file, buffer, offset."""


def _pieces(checkpoint: TrainingCheckpoint) -> dict[str, list[_Piece]]:
    """What the files hold, by parameter."""
    pieces: dict[str, list[_Piece]] = {}
    for number, file in enumerate(checkpoint.index["files"]):
        for name, start, count, buffer, offset in file["fragments"]:
            pieces.setdefault(name, []).append((start, count, number, buffer, offset))
    return pieces


def _fill(wanted: ParameterShard, state: ShardedState, pieces: Sequence[_Piece], files: "_Files") -> None:
    """Copy what overlaps of each piece into this rank's buffers."""
    targets = {"weight": state.buffers[wanted.buffer].data, **state.moments(wanted.buffer)}
    filled = 0
    for start, count, file, buffer, offset in pieces:
        first, stop = max(start, wanted.start), min(start + count, wanted.start + wanted.count)
        if first >= stop:
            continue
        to = wanted.offset + first - wanted.start
        at = offset + first - start
        for kind in _KINDS:
            targets[kind][to : to + stop - first].copy_(files.read(file, f"{buffer}.{kind}", at, stop - first))
        filled += stop - first
    assert filled == wanted.count, f"{wanted.name}: {filled} elements of {wanted.count}"


class _Files:
    """The files of a checkpoint, opened when first read."""

    def __init__(self, checkpoint: TrainingCheckpoint) -> None:
        self._paths = [checkpoint.path / each["name"] for each in checkpoint.index["files"]]
        self._open: dict[int, Any] = {}

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.__exit__(None, None, None)

    def read(self, number: int, name: str, start: int, count: int) -> torch.Tensor:
        if number not in self._open:
            file: Any = safe_open(self._paths[number], framework="pt")
            self._open[number] = file.__enter__()
        found: torch.Tensor = self._open[number].get_slice(name)[start : start + count]
        return found


def tensor_hashes(tensors: Iterator[tuple[str, torch.Tensor]], ranks: ProcessGroup) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, the work shared out among the ranks; the same on every rank."""
    own = {}
    with ranks.at_own_pace("hashing the frozen weights") as moved:
        for number, (name, tensor) in enumerate(tensors):
            if number % ranks.world_size == ranks.rank:
                flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                own[name] = hashlib.sha256(flat.numpy().data).hexdigest()
                moved()
    return {name: digest for each in ranks.gathered(own) for name, digest in each.items()}
