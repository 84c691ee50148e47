"""Which checkpoints a run has: the latest whole one, those that are passed over, and those that are not kept.

A run goes on from the latest checkpoint of which every byte is as it was written. Whatever is newer belongs to a line
that was given up: it is set aside under another name, and deleted when the run has got that far again.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import TEMPORARY_PREFIX, sha256_of, sync_folder
from griffon_train.training.distributed import ProcessGroup

CHECKPOINTS = "checkpoints"
"""Folder of a run."""

INDEX = "checkpoint.json"
FORMAT = "griffon checkpoint 1"

_NAME = re.compile(r"step-(\d{8,})")
_ASIDE = "aside-"
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
"""What the system says of files that are damaged; a lack of rights, say, is no damage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCheckpoint:
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


def folder_of(run: Path, step: int) -> Path:
    """The folder of a checkpoint after so many steps."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def steps_there(run: Path, prefix: str = "") -> list[int]:
    """The steps that a run has checkpoints of, whole or not, in order."""
    names = (path.name for path in (run / CHECKPOINTS).glob(f"{prefix}step-*"))
    found = (_NAME.fullmatch(name.removeprefix(prefix)) for name in names)
    return sorted(int(match[1]) for match in found if match)


def latest(run: Path, ranks: ProcessGroup) -> tuple[TrainingCheckpoint | None, list[str]]:
    """The latest whole checkpoint of a run, and a line for each that is passed over; together with all ranks.

    Every byte of it has been read and compared with what was written, the files shared out among the ranks.

    Raises:
        DataError: there are checkpoints and none is whole, or the ranks see different ones.
        OSError: this rank may not read one.
    """
    passed = [
        f"{path.name.removeprefix(TEMPORARY_PREFIX)} was cut short while it was written: passed over"
        for path in partial_ones(run)
        if _NAME.fullmatch(path.name.removeprefix(TEMPORARY_PREFIX))
    ]
    steps = steps_there(run)
    seen = ranks.gathered(steps)
    if any(each != seen[0] for each in seen):
        shown = "; ".join(", ".join(map(str, each)) or "none" for each in seen)
        raise DataError(
            f"the ranks see checkpoints of different steps ({shown}): {run} has to be the same folder on every machine"
        )
    damages: list[str] = []
    for step in reversed(steps):
        found = _opened(run, step)
        problems = [each for each in ranks.gathered(None if isinstance(found, TrainingCheckpoint) else found) if each]
        if isinstance(found, TrainingCheckpoint) and not problems:
            problems = [each for damaged in ranks.gathered(_damage(found, ranks)) for each in damaged]
            if not problems:
                return found, passed + [f"{damage}: passed over" for damage in damages]
        damages.append(problems[0])
    if damages:
        raise DataError(
            f"none of the checkpoints in {run / CHECKPOINTS} is whole ({'; '.join(damages)}): bring one back, or "
            f"delete {run} to begin anew"
        )
    return None, passed


def set_aside(run: Path, after: int) -> list[str]:
    """Rename the checkpoints of later steps than the one that the run goes on from; a line for each."""
    lines = []
    for step in steps_there(run):
        if step > after:
            path = folder_of(run, step)
            aside = path.with_name(_ASIDE + path.name)
            if aside.is_dir():
                removed(aside)
            path.rename(aside)
            lines.append(f"{path.name} is set aside as {aside}; it is deleted when there is a whole one again")
    return lines


def prune(run: Path, step: int, keep: int, moved: Callable[[], object]) -> None:
    """Delete what is not kept of a run that has a whole checkpoint after `step` steps; `moved` is called for each.

    These are all but the latest `keep` whole ones up to that step, and what was set aside and is not newer than it.
    Later steps are not of this run's line; they are neither counted nor deleted.
    """
    there = [each for each in steps_there(run) if each <= step]
    whole = [each for each in there if each == step or isinstance(_opened(run, each), TrainingCheckpoint)]
    for each in there:
        if each not in whole[-keep:]:
            removed(folder_of(run, each))
            moved()
    for each in steps_there(run, _ASIDE):
        if each <= step:
            path = folder_of(run, each)
            removed(path.with_name(_ASIDE + path.name))
            moved()


def removed(path: Path) -> None:
    """Delete a checkpoint so that half of it never goes by its name."""
    going = path.with_name(f"{TEMPORARY_PREFIX}removed-{path.name}")
    shutil.rmtree(going, ignore_errors=True)
    path.rename(going)
    sync_folder(path.parent)
    _delete(going)


def partial_ones(run: Path) -> list[Path]:
    """What was cut short while it was written, or while it was deleted."""
    return sorted((run / CHECKPOINTS).glob(f"{TEMPORARY_PREFIX}*"))


def remove_partial(run: Path) -> None:
    """Delete what was cut short; only while nobody else writes into the run's folder."""
    for path in partial_ones(run):
        _delete(path)


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():  # what a link of the user's leads to is left alone
        path.unlink()
    else:
        shutil.rmtree(path)


def sha256_of_index(index: Mapping[str, Any]) -> str:
    """Of all else that it says."""
    return hashlib.sha256(orjson.dumps(index, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _opened(run: Path, step: int) -> TrainingCheckpoint | str:
    """A checkpoint whose files are all there in full length, or what is wrong with it."""
    path = folder_of(run, step)
    try:
        index = orjson.loads((path / INDEX).read_bytes())
        if not isinstance(index, dict) or index.pop("sha256", None) != sha256_of_index(index):
            return f"{path.name}/{INDEX} is damaged (its SHA-256 is not the recorded one)"
        if index["format"] != FORMAT:
            return f"{path.name} is of another format, {index['format']!r}"
        if index["step"] != step:
            return f"{path.name} holds the checkpoint of step {index['step']}"
        for each in index["files"]:
            found = (path / each["name"]).stat().st_size
            if found != each["bytes"]:
                return f"{path.name}/{each['name']} has {found:,} bytes of {each['bytes']:,}"
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        return f"{path.name}/{INDEX} is damaged ({error})"
    except OSError as error:
        return _damaged(error, path.name)
    return TrainingCheckpoint(path=path, index=index)


def _damage(checkpoint: TrainingCheckpoint, ranks: ProcessGroup) -> list[str]:
    """What is wrong with this rank's share of the files, each of which it reads."""
    wrong = []
    with ranks.at_own_pace(f"reading {checkpoint.path}") as moved:
        for each in checkpoint.index["files"][ranks.rank :: ranks.world_size]:
            name = f"{checkpoint.path.name}/{each['name']}"
            try:
                if sha256_of(checkpoint.path / each["name"], moved) != each["sha256"]:
                    wrong.append(f"{name} is damaged (its SHA-256 is not the recorded one)")
            except OSError as error:
                wrong.append(_damaged(error, name))
    return wrong


def _damaged(error: OSError, name: str) -> str:
    """What an error says of a checkpoint, where it does not say something of this process."""
    if error.errno not in _DAMAGE:
        raise error
    return f"{name} is not whole ({error})"
