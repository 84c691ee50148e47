"""Profiles some steps of a run with PyTorch's profiler, and writes a trace of each rank."""

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from griffon_shards.support.errors import DataError
from griffon_train.config.run_folder import PROFILE
from griffon_train.data.steering import steps_between

_log = logging.getLogger(__name__)


class StepProfile:
    """Records steps while they are taken. Files are in Chrome's trace format, which Perfetto reads, too."""

    def __init__(self, run: Path, steps: str | None, rank: int, device: torch.device) -> None:
        """Prepare; nothing is recorded yet.

        Args:
            run: folder of the run.
            steps: steps to record, as `--profile-steps` takes them; None for none.
            rank: number of this process, which is part of the file's name.
            device: device of this process.
        """
        self._folder, self._rank = run / PROFILE, rank
        self._steps = range(0) if steps is None else steps_between("--profile-steps", steps, "profiles")
        self._activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profile: profile | None = None
        self._recorded: list[int] = []

    def before(self, step: int) -> None:
        """Start to record if the step is one of those to record; a resumed run may begin among them.

        Raises:
            DataError: the last of them was skipped, and the trace of the others cannot be written.
        """
        if step not in self._steps:
            self.close()
            return
        if self._profile is None:
            self._profile = profile(activities=self._activities, record_shapes=True)
            self._profile.start()
        self._recorded.append(step)

    def after(self, step: int) -> None:
        """Write the trace after the last step.

        Raises:
            DataError: it cannot be written.
        """
        if step + 1 >= self._steps.stop:
            self.close()

    def close(self) -> None:
        """Write what was recorded, if anything; a run may end before the last step.

        Raises:
            DataError: it cannot be written.
        """
        if self._profile is None:
            return
        recorded, self._profile = self._profile, None
        recorded.stop()
        name = f"steps-{self._recorded[0]}-{self._recorded[-1] + 1}.rank-{self._rank:05d}.json.gz"
        path = self._folder / name
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            recorded.export_chrome_trace(str(path))
        except OSError as error:
            raise DataError(
                f"{path}: {error.strerror}; the trace could not be written. Free space, or leave --profile-steps out, "
                "then rerun the same command to resume"
            ) from None
        _log.info("trace of steps %d to %d: %s", self._recorded[0], self._recorded[-1], path)
