"""The rows of many keys. `FrozenSet.row` looks through a complete source for each."""

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError


class KeyRows:
    """Finds the rows of keys; a source is sorted when its first key is asked for. Threads may share it."""

    def __init__(self, frozen: FrozenSet) -> None:
        self._frozen = frozen
        self._sources: dict[str, tuple[NDArray[np.uint32], NDArray[np.uint32]]] = {}

    def row(self, key: str) -> int | None:
        """The row of a key; None if the set has no such sample."""
        tag, _, record = key.rpartition("-")
        if not (record.isascii() and record.isdecimal() and len(record) <= 10):
            return None
        try:
            records, rows = self._source(tag)
        except DataError:  # no such source
            return None
        place = int(np.searchsorted(records, int(record)))
        if place == len(rows):
            return None
        row = int(rows[place])
        return row if self._frozen.key(row) == key else None

    def _source(self, tag: str) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Record numbers of a source, ascending, and their rows."""
        if tag not in self._sources:
            rows = self._frozen.rows_of_source(tag)
            records = self._frozen.index["record"][rows.start : rows.stop]
            order = np.argsort(records, kind="stable")
            self._sources[tag] = records[order], (order + rows.start).astype(np.uint32)
        return self._sources[tag]
