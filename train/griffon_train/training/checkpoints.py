"""Checkpoints that are independent of world size: each rank writes its slices, any number of ranks can read them.

A checkpoint is a folder that gets its final name when it is complete: every rank's file, then `checkpoint.json`, which
lists where each slice is, then one rename. DeepSpeed's universal checkpoint is not used: from two ranks to one it
restores wrong values without an error (random frozen weights, learning rates of other groups).
"""

import errno
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
from griffon_shards.support.tables import size
from griffon_train.config.run_folder import CHECKPOINT_INDEX_NAME
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.model.deferred import is_deferred, value_of
from griffon_train.model.weight_files import drop_pages, is_mapped
from griffon_train.training.checkpoint_folders import (
    FORMAT,
    TrainingCheckpoint,
    folder_of,
    removed,
    sha256_of_index,
)
from griffon_train.training.tensor_file import write_tensors
from griffon_train.training.zero_shards import MOMENTS, ParameterShard, ShardedState

_KINDS = ("weight", *MOMENTS)


def save(run: Path, step: int, state: ShardedState, extra: Mapping[str, Any], ranks: ProcessGroup) -> Path:
    """Write a checkpoint. Every rank calls this.

    Args:
        run: folder of the run, shared by all machines.
        step: number of optimizer steps taken.
        state: weights and moments of this rank.
        extra: further content of `checkpoint.json`.
        ranks: process group.

    Returns:
        The checkpoint's folder.

    Raises:
        DataError: a rank could not write; every rank raises it, and nothing has changed.
    """
    target = folder_of(run, step)
    incomplete = target.with_name(TEMPORARY_PREFIX + target.name)
    on_all_ranks = partial(_on_all_ranks, ranks, step)
    try:
        needed_bytes = sum(ranks.gathered(_bytes_of(state))) + len(orjson.dumps(extra))
        on_all_ranks(lambda _: _make_empty(incomplete, needed_bytes) if ranks.first else None)
        files = on_all_ranks(lambda moved: _write_own(incomplete / f"rank-{ranks.rank:05d}.safetensors", state, moved))
        index = {"format": FORMAT, "step": step, "optimizer_steps": state.steps(), "files": files, **extra}
        on_all_ranks(lambda _: _complete(incomplete, target, index) if ranks.first else None)
    except DataError:
        if ranks.first:  # free the space: the disk may be full
            shutil.rmtree(incomplete, ignore_errors=True)
        raise
    return target


def _on_all_ranks(ranks: ProcessGroup, step: int, work: Callable[[Callable[[], None]], Any]) -> list[Any]:
    """Do the work and return every rank's result in rank order; raise on all ranks if it fails on any."""
    result: dict[str, Any] = {}
    with ranks.at_own_pace(f"writing a checkpoint after {step} steps") as moved:
        try:
            result["done"] = work(moved)
        except OSError as error:
            result["failed"] = f"rank {ranks.rank}: {error}"
    results = ranks.gathered(result)
    failures = [each["failed"] for each in results if "failed" in each]
    if failures:
        raise DataError(f"no checkpoint was written at step {step}: {'; '.join(failures)}")
    return [each["done"] for each in results]


def _bytes_of(state: ShardedState) -> int:
    """Size of the tensors that this rank writes, and of their description in the index."""
    return sum(len(_KINDS) * flat.nbytes for flat in state.buffers) + len(orjson.dumps(_fragments(state)))


def _make_empty(folder: Path, needed_bytes: int) -> None:
    """Make the folder to write into, if the disk has enough space for its files."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed_bytes:  # some network file systems report nothing
        lacking = (
            f"a checkpoint takes {size(needed_bytes)}, which is {size(needed_bytes - usage.free)} more than is free"
        )
        raise OSError(errno.ENOSPC, lacking, str(folder.parent))


def _complete(incomplete: Path, target: Path, index: Mapping[str, Any]) -> None:
    """Write the index and give the folder its final name."""
    write_whole(incomplete / CHECKPOINT_INDEX_NAME, orjson.dumps({**index, "sha256": sha256_of_index(index)}))
    if target.is_dir():  # created by someone else after this run resumed
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
    status = path.stat()
    return {
        "name": path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": sha256,
        "fragments": _fragments(state),
    }


def _fragments(state: ShardedState) -> list[list[Any]]:
    return [list(asdict(each).values()) for each in state.fragments]


def restore(checkpoint: TrainingCheckpoint, state: ShardedState, sizes: Mapping[str, int], ranks: ProcessGroup) -> None:
    """Load a checkpoint's weights and moments into the engine and verify the model's weights. Every rank calls this.

    Args:
        checkpoint: a complete checkpoint.
        state: weights and moments of this rank, which are overwritten.
        sizes: number of elements of every trained parameter.
        ranks: process group.

    Raises:
        DataError: the checkpoint has other parameters, or the weights differ after loading.
    """
    pieces = _pieces(checkpoint)
    held = {name: sum(count for _, count, *_ in of_name) for name, of_name in pieces.items()}
    if held != dict(sizes):
        different = sorted(name for name in {**held, **sizes} if held.get(name) != sizes.get(name))
        raise DataError(
            f"{checkpoint.path} has other parameters than those that train now, such as {', '.join(different[:3])} "
            f"({len(different)} in all); resume with the model and freezing flags of the run"
        )
    with ranks.at_own_pace(f"reading {checkpoint.path}") as moved, _Files(checkpoint) as files:
        for fragment in state.fragments:
            _fill(fragment, state, pieces[fragment.name], files)
            moved()
    state.set_steps(int(checkpoint.index["optimizer_steps"]))
    state.weights_to_model()
    different = state.differing()
    if different:
        raise DataError(
            f"{checkpoint.path}: {', '.join(different[:3])} differ from the checkpoint after loading it; nothing was "
            "trained"
        )


def trained_weights(checkpoint: TrainingCheckpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the float32 weights of every parameter in a checkpoint, flattened, with its name."""
    with _Files(checkpoint) as files:
        for name, pieces in _pieces(checkpoint).items():
            flat = torch.empty(sum(count for _, count, *_ in pieces))
            for start, count, file, buffer, offset in pieces:
                flat[start : start + count] = files.read(file, f"{buffer}.weight", offset, count)
            yield name, flat


_Piece = tuple[int, int, int, int, int]
"""Start, count, file, buffer, offset."""


def _pieces(checkpoint: TrainingCheckpoint) -> dict[str, list[_Piece]]:
    """The slices in all files, by parameter."""
    pieces: dict[str, list[_Piece]] = {}
    for number, file in enumerate(checkpoint.index["files"]):
        for name, start, count, buffer, offset in file["fragments"]:
            pieces.setdefault(name, []).append((start, count, number, buffer, offset))
    return pieces


def _fill(wanted: ParameterShard, state: ShardedState, pieces: Sequence[_Piece], files: "_Files") -> None:
    """Copy the overlap of each piece with the wanted slice into this rank's buffers."""
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
        values: torch.Tensor = self._open[number].get_slice(name)[start : start + count]
        return values


def tensor_hashes(tensors: Iterator[tuple[str, torch.Tensor]], ranks: ProcessGroup) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, the same on every rank. The ranks share the work."""
    own = {}
    with ranks.at_own_pace("hashing the frozen weights") as moved:
        for number, (name, tensor) in enumerate(tensors):
            if number % ranks.world_size == ranks.rank:
                own[name] = sha256_of_tensor(tensor)
                moved()
    return {name: digest for of_rank in ranks.gathered(own) for name, digest in of_rank.items()}


def sha256_of_value(parameter: torch.nn.Parameter, dtype: torch.dtype) -> str:
    """SHA-256 of a parameter's value in a type; what can be read or computed again does not stay in memory."""
    sha256 = sha256_of_tensor(value_of(parameter, dtype))
    if is_mapped(parameter) or is_deferred(parameter):
        drop_pages(parameter.data)
    return sha256


def sha256_of_tensor(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
