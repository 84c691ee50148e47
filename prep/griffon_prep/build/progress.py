"""Progress of a build: one bar per source on a terminal, log lines otherwise."""

import logging
import sys
import time

from tqdm import tqdm

from griffon_shards.support.tables import counted

_log = logging.getLogger(__name__)

_LINE_EVERY_S = 10.0


class Progress:
    """Counts the records of one source as its shards are finished, on standard error."""

    def __init__(self, tag: str, records: int, began: float) -> None:
        """Start counting. `began` is the `time.monotonic` value at which work on the source started."""
        self._tag = tag
        self._records = records
        self._done = 0
        self._began = began
        self._last_line = time.monotonic()
        shown = sys.stderr.isatty() and _log.isEnabledFor(logging.INFO)
        self._bar = tqdm(total=records, desc=tag, unit=" samples", dynamic_ncols=True) if shown else None
        if self._bar is not None:
            self._bar.start_t -= self._last_line - began

    def add(self, records: int) -> None:
        """Count the records of a finished shard, samples and rejects alike."""
        self._done += records
        if self._bar is not None:
            self._bar.update(records)
            if self._done >= self._records:
                self._bar.close()
        elif self._done >= self._records or time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            rate = self._done / max(self._last_line - self._began, 1e-9)
            left_s = (self._records - self._done) / rate
            total = counted(self._records, "record")
            _log.info(f"{self._tag}: {self._done:,} of {total}, {rate:,.0f}/s, {left_s:,.0f} s left")

    def close(self) -> None:
        """Close the bar, whether finished or not."""
        if self._bar is not None:
            self._bar.close()
