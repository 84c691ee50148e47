"""Writes scalars for TensorBoard, in the caller's thread.

The writers of torch and TensorBoard use a thread, which on a full disk ends with a traceback that names no file.
"""

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from griffon_train.training.log_files import Appended

_VERSION = "brain.Event:2"


class Board:
    """An event file in a run's folder."""

    def __init__(self, folder: Path, *, start: int) -> None:
        """Create an event file.

        Args:
            folder: TensorBoard's log directory.
            start: the next step; TensorBoard hides what earlier files have from this step on.

        Raises:
            OSError: the file cannot be written; the error has its name.
        """
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, so names begin with the time.
        self._file = Appended(
            folder / f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.0"
        )
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version=_VERSION))
        self._add(Event(wall_time=time.time(), step=start, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Write a value at a step.

        Raises:
            OSError: the file cannot be written; the error has its name.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
