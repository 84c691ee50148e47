"""A file that is written past the page cache: no core copies its bytes there, and no file that others read is evicted.

A thread writes one buffer while the next one is filled and hashed.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from griffon_shards.support.files import begin_write_back

_BUFFER_BYTES = 16 << 20
BUFFERS_BYTES = 2 * _BUFFER_BYTES
"""Host memory that a file takes while it is written."""

_SYNC_BYTES = 256 << 20  # otherwise the final fsync could write everything in one long call
_DIRECT: int = getattr(os, "O_DIRECT", 0)


class DirectFile:
    """A new file. What was written is on disk after `finish`; `close` must follow in any case.

    A file system may refuse to bypass the page cache, and most do for a last buffer that does not fill whole blocks.
    The page cache is used then.
    """

    def __init__(self, path: Path, hashed_by: Callable[[memoryview], None] | None = None) -> None:
        """Open the file.

        Args:
            path: file to write.
            hashed_by: called with all bytes, in order.

        Raises:
            OSError: the file cannot be written.
        """
        self._file = path.open("wb", buffering=0)
        self._direct = _bypass_cache(self._file.fileno(), True)
        self._hashed_by = hashed_by
        self._buffer, self._other = (torch.frombuffer(mmap.mmap(-1, _BUFFER_BYTES), dtype=torch.uint8) for _ in "ab")
        self._filled = 0
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._position = self._written_back = self._synced = 0

    def write(self, data: torch.Tensor, moved: Callable[[], object]) -> None:
        """Write bytes.

        Args:
            data: shape [bytes], uint8, on any device; it may change afterwards.
            moved: called after each piece of them.

        Raises:
            OSError: these bytes, or some before them, cannot be written.
        """
        while len(data):
            space = self._buffer[self._filled :][: len(data)]
            space.copy_(data[: len(space)])
            if self._hashed_by is not None:
                self._hashed_by(space.numpy().data)
            data = data[len(space) :]
            self._filled += len(space)
            if self._filled == _BUFFER_BYTES:
                self._hand_over()
            moved()

    def finish(self) -> None:
        """Write what is left in the buffers, and flush the file to disk.

        Raises:
            OSError: some bytes cannot be written.
        """
        self._hand_over()
        self._wait()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, as soon as the thread no longer needs it."""
        with self._file, self._writer:
            pass

    def _hand_over(self) -> None:
        self._wait()
        self._writing = self._writer.submit(self._write, self._buffer[: self._filled].numpy().data)
        self._buffer, self._other, self._filled = self._other, self._buffer, 0

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                count = os.write(self._file.fileno(), data)
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._direct = _bypass_cache(self._file.fileno(), False)  # no whole blocks: the last bytes
                continue
            data = data[count:]
            self._position += count
        self._written_back = begin_write_back(self._file, self._written_back, self._position)
        if self._position - self._synced >= _SYNC_BYTES:
            os.fdatasync(self._file.fileno())
            self._synced = self._position


def _bypass_cache(descriptor: int, wanted: bool) -> bool:
    """Let later writes bypass the page cache or not; return whether they do."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~_DIRECT
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT * wanted)
    except OSError:  # this file system always uses it
        return False
    return wanted and _DIRECT != 0
