"""The statistics of a set, counted when they are first asked for and then kept in the cache."""

import contextlib
import threading
from pathlib import Path

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.stats import count_set, json_text
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

VERSION = 1
"""Raised when the figures that `griffon-shards stats` counts change."""
_WORKERS = 2


class StoppedError(Exception):
    """The server ends; what is counted is not needed any more."""


class Statistics:
    """The statistics of a set. They are counted by a thread, which has processes of its own."""

    def __init__(self, frozen: FrozenSet, cache: Path) -> None:
        self._frozen = frozen
        self._path = cache / f"{frozen.lock.digest}.stats-{VERSION}.json"
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._counted = 0
        self._error: str | None = None
        self._json: bytes | None = None  # where the cache cannot be written
        self._stopped = threading.Event()

    def json_or_progress(self) -> bytes | float:
        """The JSON of `griffon-shards stats --json`, or the share of samples that are counted by now.

        Raises:
            DataError: they cannot be counted; asked again, counting begins anew.
        """
        if self._json is not None:
            return self._json
        with contextlib.suppress(OSError):
            return self._path.read_bytes()
        with self._lock:
            if self._thread is None:
                self._counted, self._error = 0, None
                self._thread = threading.Thread(target=self._count, name="statistics", daemon=True)
                self._thread.start()
            elif self._error is not None:
                self._thread = None
                raise DataError(self._error)
            return self._counted / max(1, len(self._frozen))

    def stop(self) -> None:
        """Stop counting."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _count(self) -> None:
        try:
            counted = json_text(count_set(self._frozen.root, workers=_WORKERS, done=self._add)).encode()
            try:
                write_whole(self._path, counted)
            except OSError:  # the cache only saves time
                self._json = counted
        except (DataError, OSError) as error:
            self._error = str(error)
        except StoppedError:
            pass

    def _add(self, rows: int) -> None:
        if self._stopped.is_set():
            raise StoppedError
        self._counted += rows
