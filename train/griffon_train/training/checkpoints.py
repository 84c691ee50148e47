"""Checkpoints that know no world size: each rank writes its pieces of weights and moments, any ranks read them.

A checkpoint is a folder that gets its name when it is whole: every rank's file, then `checkpoint.json`, which says what
stands where, then one rename. DeepSpeed's universal checkpoint is not used: from two ranks to one it comes back wrong
without an error (frozen weights random, learning rates of other groups).
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import safe_open

from griffon_shards.errors import DataError
from griffon_shards.files import TEMPORARY_PREFIX, sha256_of, sync_folder, write_whole
from griffon_train.training.fragments import MOMENTS, Fragment, ShardedState
from griffon_train.training.ranks import Ranks
from griffon_train.training.tensor_file import write_tensors

CHECKPOINTS = "checkpoints"
"""Folder of a run."""

_INDEX = "checkpoint.json"
_FORMAT = "griffon checkpoint 1"
_KINDS = ("weight", *MOMENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: its folder.
        index: what `checkpoint.json` says.
    """

    path: Path
    index: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Steps that the optimizer had taken."""
        return int(self.index["step"])


def save(run: Path, step: int, state: ShardedState, extra: Mapping[str, Any], ranks: Ranks, *, keep: int) -> Path:
    """Write a checkpoint, together with all ranks, and delete all but the last.

    Args:
        run: folder of the run, shared by all machines.
        step: steps taken by the optimizer.
        state: of this rank.
        extra: whatever else `checkpoint.json` is to hold.
        ranks: all of them.
        keep: checkpoints to keep, this one among them.

    Returns:
        The checkpoint's folder.

    Raises:
        DataError: a rank could not write; every rank raises it, and nothing has changed.
    """
    target = run / CHECKPOINTS / f"step-{step:08d}"
    incomplete = target.with_name(TEMPORARY_PREFIX + target.name)
    together = partial(_together, ranks, step)
    together(lambda _: _made_anew(incomplete) if ranks.first else None)
    files = together(lambda moved: _write_own(incomplete / f"rank-{ranks.rank:05d}.safetensors", state, moved))
    index = {"format": _FORMAT, "step": step, "optimizer_steps": state.steps(), "files": files, **extra}
    together(lambda moved: _complete(incomplete, target, index, keep, moved) if ranks.first else None)
    return target


def _together(ranks: Ranks, step: int, work: Callable[[Callable[[], None]], Any]) -> list[Any]:
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
        raise DataError(f"no checkpoint was written at step {step}: {'; '.join(failures)}; the one before stands")
    return [each["done"] for each in everybody]


def _made_anew(partial: Path) -> None:
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)


def _complete(incomplete: Path, target: Path, index: Mapping[str, Any], keep: int, moved: Callable[[], None]) -> None:
    """Write what says where everything is, give the folder its name, and delete the oldest."""
    write_whole(incomplete / _INDEX, orjson.dumps({**index, "sha256": _sha256_of_index(index)}))
    if target.exists():  # of a run that was resumed from an earlier one
        shutil.rmtree(target)
    incomplete.rename(target)
    sync_folder(target.parent)
    for old in sorted(target.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
        moved()


def _sha256_of_index(index: Mapping[str, Any]) -> str:
    """Of all else that it says."""
    return hashlib.sha256(orjson.dumps(index, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _write_own(path: Path, state: ShardedState, moved: Callable[[], None]) -> Mapping[str, Any]:
    tensors = {}
    for number, flat in enumerate(state.buffers):
        tensors[f"{number}.weight"] = flat.data
        for name, moment in state.moments(number).items():
            tensors[f"{number}.{name}"] = moment
    sha256 = write_tensors(path, tensors, moved)
    fragments = [list(asdict(each).values()) for each in state.fragments]
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256, "fragments": fragments}


def newest(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run, and a line for each that is passed over."""
    passed = [
        f"{path.name.removeprefix(TEMPORARY_PREFIX)} was cut short while it was written: passed over"
        for path in sorted((run / CHECKPOINTS).glob(f"{TEMPORARY_PREFIX}*"))
    ]
    for path in sorted((run / CHECKPOINTS).glob("step-*"), reverse=True):
        try:
            return _opened(path), passed
        except DataError as error:
            passed.append(f"{error}: passed over")
    return None, passed


def remove_partial(run: Path) -> None:
    """Delete what was cut short; only while nobody else writes into the run's folder."""
    for path in (run / CHECKPOINTS).glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(path)


def _opened(path: Path) -> Checkpoint:
    try:
        index = orjson.loads((path / _INDEX).read_bytes())
        if index.pop("sha256") != _sha256_of_index(index):
            raise DataError(f"{path.name}/{_INDEX} is damaged (its SHA-256 is not the recorded one)")
        if index["format"] != _FORMAT:
            raise DataError(f"{path.name} is of another format, {index['format']!r}")
        for each in index["files"]:
            found = (path / each["name"]).stat().st_size
            if found != each["bytes"]:
                raise DataError(f"{path.name}/{each['name']} has {found:,} bytes of {each['bytes']:,}")
    except (OSError, KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise DataError(f"{path.name} is not whole ({error})") from None
    return Checkpoint(path=path, index=index)


def restore(checkpoint: Checkpoint, state: ShardedState, sizes: Mapping[str, int], ranks: Ranks) -> None:
    """Put a checkpoint's weights and moments into the engine, together with all ranks, and compare.

    Args:
        checkpoint: a whole one.
        state: of this rank.
        sizes: elements of every parameter that trains.
        ranks: all of them.

    Raises:
        DataError: a file is damaged, or the checkpoint is not of these parameters.
    """
    _verify(checkpoint, ranks)
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


def _pieces(checkpoint: Checkpoint) -> dict[str, list[_Piece]]:
    """What the files hold, by parameter."""
    pieces: dict[str, list[_Piece]] = {}
    for number, file in enumerate(checkpoint.index["files"]):
        for name, start, count, buffer, offset in file["fragments"]:
            pieces.setdefault(name, []).append((start, count, number, buffer, offset))
    return pieces


def _fill(wanted: Fragment, state: ShardedState, pieces: Sequence[_Piece], files: "_Files") -> None:
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

    def __init__(self, checkpoint: Checkpoint) -> None:
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


def _verify(checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Read every file once, shared out among the ranks; every rank raises what one has found."""
    mine = checkpoint.index["files"][ranks.rank :: ranks.world_size]
    with ranks.at_own_pace(f"reading {checkpoint.path}") as moved:
        damaged = [each["name"] for each in mine if sha256_of(checkpoint.path / each["name"], moved) != each["sha256"]]
    names = [name for each in ranks.gathered(damaged) for name in each]
    if names:
        raise DataError(
            f"{checkpoint.path}: {', '.join(names)} is damaged (its SHA-256 is not the recorded one); delete the "
            "folder, and the run goes on from the checkpoint before"
        )


def tensor_hashes(tensors: Iterator[tuple[str, torch.Tensor]], ranks: Ranks) -> dict[str, str]:
    """SHA-256 of each tensor's bytes, the work shared out among the ranks; the same on every rank."""
    own = {}
    with ranks.at_own_pace("hashing the frozen weights") as moved:
        for number, (name, tensor) in enumerate(tensors):
            if number % ranks.world_size == ranks.rank:
                flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                own[name] = hashlib.sha256(flat.numpy().data).hexdigest()
                moved()
    return {name: digest for each in ranks.gathered(own) for name, digest in each.items()}
