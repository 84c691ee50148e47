"""Scalars for TensorBoard, written at once and by the caller.

The libraries' own writers hand them to a thread: where the disk is full it ends with a traceback that names no file.
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
    """A file of events in a run's folder."""

    def __init__(self, folder: Path, *, start: int) -> None:
        """Begin a file.

        Args:
            folder: that TensorBoard is given.
            start: first step to come; what earlier files have of it and later ones is not shown.

        Raises:
            OSError: it cannot be written, with the file's name.
        """
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, so the time comes first.
        self._file = Appended(
            folder / f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.0"
        )
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version=_VERSION))
        self._add(Event(wall_time=time.time(), step=start, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Show a value at a step.

        Raises:
            OSError: it cannot be written, with the file's name.
        """
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
