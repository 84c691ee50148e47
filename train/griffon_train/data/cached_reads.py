"""Reads an order's samples through a cache on disk.

What is kept is decided here, for all ranks of the machine, in the order of the plan and before anything is read. The
content of the cache is therefore a function of plan, size and first step, however fast the ranks or the storage are.
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import size
from griffon_train.data.cache_files import CacheFiles
from griffon_train.data.next_uses import HORIZON, Known, NextUses
from griffon_train.data.node_reader import CacheSettings, ReadOrder
from griffon_train.data.read_ahead import node_steps
from griffon_train.data.sample_cache import FAR, FarthestFirst

_log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.5  # for what is needed again; a cache that is not full has no need to know


class CachedReads:
    """Reads rows from the cache or from storage. Call `fetch` in the order of the reads."""

    def __init__(
        self,
        order: ReadOrder,
        cache: CacheSettings,
        pool: ThreadPoolExecutor,
        raw: Callable[[int, int], bytes],
        horizon: int = HORIZON,
    ) -> None:
        """Open the cache.

        Args:
            order: what will be read.
            cache: folder and size of the cache.
            pool: runs the reads; a queue that starts them in order.
            raw: reads the tar bytes of a row of a set from storage.
            horizon: reads that are known ahead.

        Raises:
            SettingsError: another run uses the cache, or its disk is too small.
            OSError: its folder cannot be written.
        """
        self._order, self._cache, self._pool, self._raw = order, cache, pool, raw
        self._sets = order.order.sets
        self._first_numbers = np.cumsum([0, *map(len, self._sets)])
        self._files = CacheFiles(cache.folder, self._sets)
        self._policy = FarthestFirst(cache.size_bytes)
        self._position = 0
        self._known: Known | None = None
        self._lock = threading.Lock()
        self._jobs: dict[int, Future[bytes]] = {}  # the last one of each sample
        self._full = False
        self.cached_bytes = 0
        self._take_over()
        self._next_uses = NextUses(self._numbers, horizon)

    def fetch(self, set_no: int, row: int) -> "Future[bytes]":
        """Start reading a row."""
        known = self._next_uses.latest(self._position, 0.0 if self._position else _FIRST_WAIT_S)
        if known is not None and known is not self._known:
            self._known = known
            self._remove(self._policy.replan(known.from_position(self._position, self._policy.numbers)))
        number = int(self._first_numbers[set_no]) + row
        next_use = FAR if known is None else known.next_use(self._position)
        use = self._policy.use(number, self._size(set_no, row), next_use)
        self._position += 1
        self._remove(use.evicted)
        return self._start(number, lambda: self._read(set_no, row, hit=use.hit, kept=use.kept))

    def close(self) -> None:
        """Finish what is being written, and let other runs use the cache."""
        self._next_uses.close()
        with self._lock:
            jobs = tuple(self._jobs.values())
        wait(jobs)
        self._files.close()

    def _take_over(self) -> None:
        """Use what an earlier run has kept, as far as it fits; check that there is room for the rest."""
        kept_bytes = 0
        for set_no in range(len(self._sets)):
            for row in self._files.rows(set_no).tolist():
                if self._policy.use(int(self._first_numbers[set_no]) + row, self._size(set_no, row), FAR).kept:
                    kept_bytes += self._size(set_no, row)
                else:
                    self._files.remove(set_no, row)
        free_bytes = shutil.disk_usage(self._cache.folder).free
        wanted = min(self._cache.size_bytes, sum(int(frozen.index["bytes"].sum()) for frozen in self._sets))
        if wanted - kept_bytes > free_bytes:
            self._files.close()
            raise SettingsError(
                f"--cache {self._cache.folder}: its disk has {size(free_bytes)} free, and the cache may take "
                f"{size(wanted - kept_bytes)} more; give a smaller --cache-size"
            )
        if kept_bytes:
            _log.info(f"{self._cache.folder}: {size(kept_bytes)} are cached already")

    def _numbers(self) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of the samples that are read, step by step."""
        for step in node_steps(self._order, self._order.start):
            yield self._first_numbers[step.sets] + step.rows

    def _size(self, set_no: int, row: int) -> int:
        return int(self._sets[set_no].index["bytes"][row])

    def _remove(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            set_no = int(np.searchsorted(self._first_numbers, number, side="right")) - 1
            row = number - int(self._first_numbers[set_no])
            self._start(number, partial(self._free, set_no, row))

    def _free(self, set_no: int, row: int) -> bytes:
        self._files.remove(set_no, row)
        return b""

    def _start(self, number: int, job: Callable[[], bytes]) -> "Future[bytes]":
        """Run a job once the sample's earlier ones have ended. Those were started before, so that threads can wait."""
        with self._lock:
            before = self._jobs.get(number)
            future = self._jobs[number] = self._pool.submit(_after, before, job)
        future.add_done_callback(lambda done: self._forget(number, done))
        return future

    def _forget(self, number: int, done: "Future[bytes]") -> None:
        with self._lock:
            if self._jobs.get(number) is done:
                del self._jobs[number]

    def _read(self, set_no: int, row: int, *, hit: bool, kept: bool) -> bytes:
        data = self._files.read(set_no, row) if hit else None
        if data is None:
            data = self._raw(set_no, row)
            if kept:
                self._write(set_no, row, data)
        else:
            with self._lock:
                self.cached_bytes += len(data)
        if hit and not kept:
            self._files.remove(set_no, row)
        return data

    def _write(self, set_no: int, row: int, data: bytes) -> None:
        try:
            self._files.write(set_no, row, data)
        except OSError as error:  # training can do without
            if not self._full:
                self._full = True
                _log.warning(f"--cache {self._cache.folder}: {error.strerror}; what does not fit is read again")


def _after(before: "Future[bytes] | None", job: Callable[[], bytes]) -> bytes:
    if before is not None:
        wait((before,))
    return job()
