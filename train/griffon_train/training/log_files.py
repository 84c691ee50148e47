"""Files that grow at their end: what fails names its file, and fails once, not a second time when it is closed."""

import os
from pathlib import Path


class Appended:
    """A file that is written to at its end, without a buffer: what `write` has taken is the system's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OSError: it cannot be written, with the file's name; a part of it may have been.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            error.filename = str(self.path)
            raise

    def sync(self) -> None:
        """Wait until all that was written is on disk.

        Raises:
            OSError: it is not, with the file's name.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)
            raise

    def close(self) -> None:
        """Close it."""
        self._file.close()
