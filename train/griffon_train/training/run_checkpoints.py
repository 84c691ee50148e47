"""The checkpoints of a run while it trains: restoring the latest one, writing new ones, deleting old ones."""

import logging
from collections.abc import Mapping
from pathlib import Path

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.config.settings import Settings, settings_as_json
from griffon_train.data.cursor import cursor_state, restore_cursor
from griffon_train.data.plan import Plan
from griffon_train.data.steering import Steering
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.training import checkpoint_folders, checkpoints
from griffon_train.training.best_checkpoint import best_checkpoint
from griffon_train.training.engine import Engine
from griffon_train.training.zero_shards import ShardedState

_log = logging.getLogger(__name__)


class RunCheckpoints:
    """The checkpoints of a run that trains in this process.

    Attributes:
        saved: number of steps done at the latest complete checkpoint; 0 without one.
    """

    def __init__(
        self,
        settings: Settings,
        ranks: ProcessGroup,
        plan: Plan,
        steering: Steering,
        engine: Engine,
        frozen_sha256: Mapping[str, str],
    ) -> None:
        """Prepare; nothing is read or written.

        Args:
            settings: settings of the run.
            ranks: process group.
            plan: order of the samples.
            steering: steps to skip, and changes of the learning rate.
            engine: DeepSpeed engine, whose weights and optimizer state are restored and saved.
            frozen_sha256: SHA-256 of each frozen weight, by name.
        """
        self._settings, self._ranks, self._plan, self._steering, self._engine = settings, ranks, plan, steering, engine
        self._state = ShardedState(engine, ranks.rank)
        self._frozen_sha256 = frozen_sha256
        self.saved = 0

    def resume(self, steps: int) -> int:
        """Restore the latest complete checkpoint of a run of so many steps. Every rank calls this.

        Returns:
            The next step, 0 without a checkpoint.

        Raises:
            SettingsError: the frozen weights differ from those that the run started with.
            DataError: no checkpoint is complete, or it has other parameters.
        """
        run = self._settings.output_dir
        checkpoint, skipped = checkpoint_folders.latest(run, self._ranks)
        if self._ranks.first:
            for line in skipped:
                _log.warning(line)
            checkpoint_folders.remove_partial(run)
        if checkpoint is None:
            return 0
        start = restore_cursor(checkpoint.index["cursor"], self._plan, self._steering)
        before = checkpoint.index["frozen_sha256"]
        changed = sorted(name for name, sha256 in self._frozen_sha256.items() if before.get(name) != sha256)
        if changed:
            raise SettingsError(
                f"{checkpoint.path}: the frozen weights differ from those that the run started with, such as "
                f"{changed[0]} ({len(changed)} in all): the model that it was given has changed since; restore that "
                "model, or start a new run with another --output-dir"
            )
        sizes = {
            name: int(getattr(parameter, "ds_numel", parameter.numel()))
            for name, parameter in self._engine.module.named_parameters()
            if parameter.requires_grad
        }
        checkpoints.restore(checkpoint, self._state, sizes, self._ranks)
        _log.info("resuming at step %d of %d, from %s", start, steps, checkpoint.path)
        if self._ranks.first:
            for line in checkpoint_folders.set_aside(run, start):
                _log.info(line)
        self.prune(start)
        self.saved = start
        return start

    def save(self, done: int) -> Path:
        """Write a checkpoint after `done` steps; return its folder. Every rank calls this.

        Raises:
            DataError: it cannot be written.
        """
        extra = {
            "cursor": cursor_state(self._plan, done, self._steering),
            "settings": settings_as_json(self._settings),
            "world_size": self._ranks.world_size,
            "frozen_sha256": self._frozen_sha256,
        }
        try:
            path = checkpoints.save(self._settings.output_dir, done, self._state, extra, self._ranks)
        except DataError as error:
            raise DataError(
                f"{error}. {self.latest_line()}; rerun the same command to resume once a checkpoint can be written"
            ) from None
        self.saved = done
        return path

    def prune(self, done: int) -> None:
        """Delete the checkpoints up to `done` steps that are neither among the latest nor the best."""
        run, kept = self._settings.output_dir, self._settings.checkpointing
        best = best_checkpoint(run, kept.keep_best) if kept.keep_best is not None and self._ranks.first else None
        keep = checkpoint_folders.Keep(
            count=kept.keep,
            total_bytes=None if kept.save_total_gb is None else kept.save_total_gb * 1e9,
            best=None if best is None else best[0],
        )
        checkpoint_folders.prune(run, done, keep, self._ranks)

    def latest_line(self) -> str:
        """The sentence of an error message about what an interrupted run resumes from."""
        return f"The checkpoint at step {self.saved} is intact" if self.saved else "There is no checkpoint yet"
