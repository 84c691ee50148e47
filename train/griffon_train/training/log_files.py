"""Append-only files whose errors name the file, and that do not fail a second time when they are closed."""

import os
from pathlib import Path


class Appended:
    """A file opened for appending, without a buffer: after `write`, the data are with the operating system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Write all of the data.

        Raises:
            OSError: the file cannot be written; the error has its name, and part of the data may have been written.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            error.filename = str(self.path)
            raise

    def sync(self) -> None:
        """Wait until everything written is on disk.

        Raises:
            OSError: the disk cannot be written; the error has the file's name.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
