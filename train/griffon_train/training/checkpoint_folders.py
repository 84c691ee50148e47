"""The checkpoints of a run: finding the latest complete one, deleting old ones, and moving abandoned ones aside.

A run resumes from the latest checkpoint whose files match their recorded hashes. Newer checkpoints belong to an
abandoned attempt: they are renamed, and deleted once the run has passed their step again.
"""

import errno
import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.support.files import TEMPORARY_PREFIX, sha256_of, sync_folder
from griffon_train.config.run_folder import CHECKPOINT_INDEX_NAME
from griffon_train.distributed.process_group import ProcessGroup

_log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""Subfolder of a run's folder."""

FORMAT = "griffon checkpoint 1"

_NAME = re.compile(r"step-(\d{8,})")
_ASIDE = "aside-"
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
"""Errors that mean that a file is damaged or missing. Others, such as missing permissions, do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCheckpoint:
    """A complete checkpoint.

    Attributes:
        path: its folder.
        index: content of `checkpoint.json`.
    """

    path: Path
    index: Mapping[str, Any]


def folder_of(run: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` steps."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def steps_there(run: Path, prefix: str = "") -> list[int]:
    """The steps of a run's checkpoints, complete or not, in ascending order."""
    names = (path.name for path in (run / CHECKPOINTS).glob(f"{prefix}step-*"))
    matches = (_NAME.fullmatch(name.removeprefix(prefix)) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def latest(run: Path, ranks: ProcessGroup) -> tuple[TrainingCheckpoint | None, list[str]]:
    """Find the latest complete checkpoint of a run. Every rank calls this.

    The ranks share the work of reading every file and comparing it with its recorded hash.

    Returns:
        The checkpoint, or None if there are none; and a message for each one that was skipped.

    Raises:
        DataError: there are checkpoints but none is complete, or the ranks see different ones.
        OSError: this rank may not read one.
    """
    skipped = [
        f"{path.name.removeprefix(TEMPORARY_PREFIX)} is incomplete (writing it was interrupted): skipped"
        for path in partial_ones(run)
        if _NAME.fullmatch(path.name.removeprefix(TEMPORARY_PREFIX))
    ]
    steps = steps_there(run)
    steps_by_rank = ranks.gathered(steps)
    if any(of_rank != steps_by_rank[0] for of_rank in steps_by_rank):
        shown = "; ".join(", ".join(map(str, of_rank)) or "none" for of_rank in steps_by_rank)
        raise DataError(
            f"the ranks see checkpoints of different steps ({shown}): {run} must be the same shared folder on every "
            "machine"
        )
    damages: list[str] = []
    for step in reversed(steps):
        opened = opened_at(run, step)
        reported = ranks.gathered(None if isinstance(opened, TrainingCheckpoint) else opened)
        problems = [problem for problem in reported if problem]
        if isinstance(opened, TrainingCheckpoint) and not problems:
            problems = [problem for of_rank in ranks.gathered(_damage(opened, ranks)) for problem in of_rank]
            if not problems:
                return opened, skipped + [f"{damage}: skipped" for damage in damages]
        damages.append(problems[0])
    if damages:
        raise DataError(
            f"none of the checkpoints in {run / CHECKPOINTS} is complete ({'; '.join(damages)}): restore one from a "
            f"copy, or delete {run} to start over"
        )
    return None, skipped


def at_step(run: Path, step: int, ranks: ProcessGroup) -> TrainingCheckpoint:
    """Open the checkpoint after `step` steps. Every rank calls this; they share the work of reading its files.

    Raises:
        DataError: there is no such checkpoint, or it is incomplete or damaged.
    """
    opened = opened_at(run, step)
    problems = [each for each in ranks.gathered(opened if isinstance(opened, str) else None) if each]
    if isinstance(opened, TrainingCheckpoint) and not problems:
        problems = [problem for of_rank in ranks.gathered(_damage(opened, ranks)) for problem in of_rank]
        if not problems:
            return opened
    steps = ", ".join(map(str, steps_there(run))) or "none"
    raise DataError(f"{run / CHECKPOINTS}: {problems[0]}; there are checkpoints after these steps: {steps}")


def latest_index(run: Path) -> Mapping[str, Any] | None:
    """The index of the latest complete checkpoint of a run that has ended, or None; its tensors are not read."""
    for step in reversed(steps_there(run)):
        opened = opened_at(run, step)
        if isinstance(opened, TrainingCheckpoint):
            return opened.index
    return None


def set_aside(run: Path, after: int) -> list[str]:
    """Rename the checkpoints of later steps than the one that the run resumes from; return a message for each."""
    lines = []
    for step in steps_there(run):
        if step > after:
            path = folder_of(run, step)
            aside = path.with_name(_ASIDE + path.name)
            if aside.is_dir():
                removed(aside)
            path.rename(aside)
            lines.append(f"{path.name} was renamed to {aside}; it is deleted once a complete checkpoint replaces it")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which checkpoints of a run to keep.

    Attributes:
        count: number of latest ones.
        total_bytes: size that they may have together; the latest and the best are kept in any case. None for any size.
        best: step of the best one, which is kept, too.
    """

    count: int
    total_bytes: float | None = None
    best: int | None = None

    def of(self, sizes: Mapping[int, int]) -> set[int]:
        """The steps to keep of those that have intact checkpoints, given the size of each in bytes."""
        kept = {step for step in sizes if step == self.best}
        for step in sorted(sizes, reverse=True)[: self.count]:
            total_bytes = sum(sizes[each] for each in kept | {step})
            if self.total_bytes is not None and total_bytes > self.total_bytes and step != max(sizes):
                break
            kept.add(step)
        return kept


def prune(run: Path, step: int, keep: Keep, ranks: ProcessGroup) -> None:
    """Delete old checkpoints of a run that has written one after `step` steps. Every rank calls this.

    Deletes all but those to keep of the intact ones up to that step, and those set aside up to that step. Checkpoints
    of later steps do not belong to this attempt: they are neither counted nor deleted. The latest and the best one are
    never deleted, even if they are damaged. A checkpoint that cannot be deleted only takes space, so it is reported and
    the run continues.
    """
    with ranks.at_own_pace("deleting older checkpoints") as moved:
        try:
            if ranks.first:
                _prune(run, step, keep, moved)
        except OSError as error:
            _log.warning(
                "%s: %s; an older checkpoint was not deleted; the run continues", error.filename, error.strerror
            )


def _prune(run: Path, step: int, keep: Keep, moved: Callable[[], object]) -> None:
    steps = [each for each in steps_there(run) if each <= step]
    sizes = {}
    for each in steps:
        damage = _damage_since_written(run, each, moved)
        if damage:
            _log.warning("%s; it does not count among the checkpoints to keep", damage)
        else:
            sizes[each] = size_of(folder_of(run, each))
    kept = keep.of(sizes) | {step, keep.best}
    for each in steps:
        if each not in kept:
            removed(folder_of(run, each))
            moved()
    for each in steps_there(run, _ASIDE):
        if each <= step:
            path = folder_of(run, each)
            removed(path.with_name(_ASIDE + path.name))
            moved()


def _damage_since_written(run: Path, step: int, moved: Callable[[], object]) -> str:
    """What is wrong with a checkpoint, or an empty string. Only files that have changed since are read."""
    opened = opened_at(run, step)
    if isinstance(opened, str):
        return opened
    changed = [
        file
        for file in opened.index["files"]
        if (opened.path / file["name"]).stat().st_mtime_ns != file.get("mtime_ns")
    ]
    return "; ".join(damaged_files(opened, changed, moved))


def size_of(folder: Path) -> int:
    """Size of a checkpoint's files in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def removed(path: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that no half-deleted folder bears a checkpoint's name."""
    going = path.with_name(f"{TEMPORARY_PREFIX}removed-{path.name}")
    shutil.rmtree(going, ignore_errors=True)
    path.rename(going)
    sync_folder(path.parent)
    _delete(going)


def partial_ones(run: Path) -> list[Path]:
    """Checkpoints whose writing or deletion was interrupted."""
    return sorted((run / CHECKPOINTS).glob(f"{TEMPORARY_PREFIX}*"))


def remove_partial(run: Path) -> None:
    """Delete incomplete checkpoints. Call it only while no other process writes into the run's folder."""
    for path in partial_ones(run):
        _delete(path)


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():  # a user's symbolic link is removed, its target is not
        path.unlink()
    else:
        shutil.rmtree(path)


def sha256_of_index(index: Mapping[str, Any]) -> str:
    """SHA-256 of an index without its own `sha256` entry."""
    return hashlib.sha256(orjson.dumps(index, option=orjson.OPT_SORT_KEYS)).hexdigest()


def opened_at(run: Path, step: int) -> TrainingCheckpoint | str:
    """A checkpoint whose files all exist at their full size, or a description of the problem."""
    path = folder_of(run, step)
    try:
        index = orjson.loads((path / CHECKPOINT_INDEX_NAME).read_bytes())
        if not isinstance(index, dict) or index.pop("sha256", None) != sha256_of_index(index):
            return f"{path.name}/{CHECKPOINT_INDEX_NAME} is damaged (its SHA-256 is not the recorded one)"
        if index["format"] != FORMAT:
            return f"{path.name} has another format, {index['format']!r}"
        if index["step"] != step:
            return f"{path.name} holds the checkpoint of step {index['step']}"
        for file in index["files"]:
            size_bytes = (path / file["name"]).stat().st_size
            if size_bytes != file["bytes"]:
                return f"{path.name}/{file['name']} has {size_bytes:,} bytes of {file['bytes']:,}"
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        return f"{path.name}/{CHECKPOINT_INDEX_NAME} is damaged ({error})"
    except OSError as error:
        return _damaged(error, path.name)
    return TrainingCheckpoint(path=path, index=index)


def _damage(checkpoint: TrainingCheckpoint, ranks: ProcessGroup) -> list[str]:
    """Read this rank's share of the files and return a message for each damaged one."""
    with ranks.at_own_pace(f"reading {checkpoint.path}") as moved:
        return damaged_files(checkpoint, checkpoint.index["files"][ranks.rank :: ranks.world_size], moved)


def damaged_files(
    checkpoint: TrainingCheckpoint, files: Sequence[Mapping[str, Any]], moved: Callable[[], object] = lambda: None
) -> list[str]:
    """Read some files of a checkpoint and return a message for each damaged one.

    Args:
        checkpoint: whose files they are.
        files: entries of `files` in its index.
        moved: called after each piece that is read.
    """
    problems = []
    for file in files:
        name = f"{checkpoint.path.name}/{file['name']}"
        try:
            if sha256_of(checkpoint.path / file["name"], moved) != file["sha256"]:
                problems.append(f"{name} is damaged (its SHA-256 is not the recorded one)")
        except OSError as error:
            problems.append(_damaged(error, name))
    return problems


def _damaged(error: OSError, name: str) -> str:
    """A message if the error is about the checkpoint; raises the error again if it is about this process."""
    if error.errno not in _DAMAGE:
        raise error
    return f"{name} is incomplete ({error})"
