"""Looks after the checkpoints of a run that is not running: lists them, reads every byte, deletes old ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.folder_lock import lock_folder
from griffon_train.config.run_folder import BEST_NAME, SETTINGS_NAME
from griffon_train.given_folder import existing_folder
from griffon_train.training.checkpoint_folders import (
    CHECKPOINTS,
    Keep,
    TrainingCheckpoint,
    damaged_files,
    folder_of,
    opened_at,
    removed,
    size_of,
    steps_there,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointState:
    """What is known of a checkpoint.

    Attributes:
        step: number of optimizer steps taken.
        size_bytes: size of its files.
        ranks: number of ranks that wrote it; 0 if its index cannot be read.
        best: whether it is the best one of a run with `--keep-best`.
        problem: what is wrong with it, or an empty string.
    """

    step: int
    size_bytes: int
    ranks: int
    best: bool
    problem: str


def checkpoints_of(run: Path, *, read: bool) -> Iterator[CheckpointState]:
    """Yield the checkpoints of a run, the latest first.

    Args:
        run: folder of the run.
        read: read every byte and compare it with its hash; otherwise only the index and the sizes are checked.

    Raises:
        SettingsError: the folder is not a run's.
    """
    _check_run(run)
    best = _best(run)
    for step in reversed(steps_there(run)):
        opened, path = opened_at(run, step), folder_of(run, step)
        problem, ranks = opened if isinstance(opened, str) else "", 0
        if isinstance(opened, TrainingCheckpoint):
            ranks = len(opened.index["files"])
            problem = _damage(run, step) if read else ""
        yield CheckpointState(step=step, size_bytes=size_of(path), ranks=ranks, best=step == best, problem=problem)


def _check_run(run: Path) -> None:
    existing_folder("RUN", run)
    if not (run / SETTINGS_NAME).is_file():
        raise SettingsError(f"{run}: no {SETTINGS_NAME} in it; give the --output-dir of a run")


def _best(run: Path) -> int | None:
    """The step of the best checkpoint that the run has recorded; None without one."""
    try:
        name = str(orjson.loads((run / BEST_NAME).read_bytes())["checkpoint"])
    except FileNotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{run / BEST_NAME}: damaged ({error}), so the best checkpoint is unknown; restore it from a copy, or "
            "delete it if no checkpoint is to be kept as the best"
        ) from None
    return next((step for step in steps_there(run) if name == f"{CHECKPOINTS}/{folder_of(run, step).name}"), None)


def prune_run(
    run: Path, *, count: int | None, total_bytes: float | None
) -> tuple[list[CheckpointState], list[CheckpointState]]:
    """Delete old and damaged checkpoints of a run.

    Every byte of a checkpoint is compared with its hash before it counts as one of those to keep, so a damaged one is
    never kept in place of an intact one.

    Args:
        run: folder of the run.
        count: number of latest intact checkpoints to keep; None for any number. The best one is kept, too.
        total_bytes: size that they may have together, as in `Keep`; None for any size.

    Returns:
        The checkpoints that were kept, and those that were deleted, the latest first.

    Raises:
        SettingsError: the folder is not a run's, or the run is running.
        DataError: none of its checkpoints is intact; nothing was deleted.
    """
    _check_run(run)
    with lock_folder(
        run / "lock",
        whose=f"{run}: a process is training in this folder",
        instead="it deletes old checkpoints itself (--keep); wait for it or stop it",
    ):
        states = list(checkpoints_of(run, read=False))
        best = next((state.step for state in states if state.best), None)
        keep = Keep(count=len(states) if count is None else count, total_bytes=total_bytes, best=best)
        kept, damage = _to_keep(run, states, keep)
        if states and not kept:
            raise DataError(
                f"none of the checkpoints in {run / CHECKPOINTS} is intact ({damage[0]}); nothing was deleted. Restore "
                "one from a copy, or delete the folder of the run"
            )
        deleted = [state for state in states if state.step not in kept]
        for state in deleted:
            removed(folder_of(run, state.step))
    return [state for state in states if state.step in kept], deleted


def _to_keep(run: Path, states: Sequence[CheckpointState], keep: Keep) -> tuple[set[int], list[str]]:
    """Read as few checkpoints as show which intact ones to keep; return their steps, and what is wrong with others."""
    intact: dict[int, int] = {}
    damage: list[str] = []
    for state in sorted(states, key=lambda state: (state.best, state.step), reverse=True):
        if not state.problem and state.step not in keep.of({**intact, state.step: state.size_bytes}):
            break
        problem = state.problem or _damage(run, state.step)
        if problem:
            damage.append(problem)
        else:
            intact[state.step] = state.size_bytes
    return set(intact), damage


def _damage(run: Path, step: int) -> str:
    """Read every byte of a checkpoint; what is wrong with it, or an empty string."""
    opened = opened_at(run, step)
    return opened if isinstance(opened, str) else "; ".join(damaged_files(opened, opened.index["files"]))
