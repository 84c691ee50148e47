"""Builds the sidecar of a set: categories, text and image sizes, which the index does not hold.

It is a file in a cache folder, named by the set's digest, and gets its name when it is complete.
"""

import contextlib
import heapq
import logging
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.listing import INDEX_ORDERS, boxes_of_variants
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import TEMPORARY_PREFIX
from griffon_shards.support.folder_lock import lock_folder
from griffon_shards.support.worker_pool import LocalPool
from griffon_shards.view import text_index
from griffon_shards.view.sidecar_rows import RowBlock, read_rows

VERSION = 2
"""Raised when a sidecar of older code no longer serves."""
_ROWS_PER_BLOCK = 1000
FEW_ROWS = 5000
"""So many rows are read in less time than a process takes to start."""
_POSTINGS_PER_CHUNK = 1 << 18
_CACHE_KIB = 32_000
_PAUSE_S = 0.5
_MAX_READ_AGAIN = 1000
_SCHEMA = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value);
CREATE TABLE columns (name TEXT PRIMARY KEY, data BLOB);
CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT UNIQUE, folded TEXT, samples INTEGER, chunk INTEGER,
    offset INTEGER);
CREATE TABLE chunk (id INTEGER PRIMARY KEY, first INTEGER, samples BLOB, rows BLOB);
{text_index.TABLE};
"""
"""Categories are numbered by their samples, the most first. A chunk holds the rows of some categories, one after the
other, and the number of rows of each."""

_LOG = logging.getLogger(__name__)


def sidecar_path(cache: Path, frozen: FrozenSet) -> Path:
    """The path of a set's sidecar."""
    return cache / f"{frozen.lock.digest}.v{VERSION}.sqlite"


def ensure_sidecar(
    frozen: FrozenSet, cache: Path, *, workers: int, done: Callable[[int], object] = lambda rows: None
) -> Path:
    """The path of a set's complete sidecar, which is built first if need be.

    Of several processes with one cache, one builds it and the others wait. What a killed one has left is removed.

    Args:
        frozen: the set.
        cache: the folder; created if it does not exist.
        workers: number of processes that read samples while this one writes.
        done: called with the number of samples read since the last call.

    Raises:
        DataError: the sidecar cannot be written, or a process was killed.
        OSError: the folder cannot be written.
    """
    path = sidecar_path(cache, frozen)
    if is_complete(path, frozen):
        return path
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(cache, frozen):
        if is_complete(path, frozen):  # another process has just built it
            return path
        temporary = _temporary_path(cache, frozen)
        temporary.unlink(missing_ok=True)
        try:
            _build(frozen, temporary, workers, done)
            for older in cache.glob(f"{frozen.lock.digest}.v*.sqlite"):
                older.unlink()
            temporary.replace(path)
        except sqlite3.Error as error:
            raise DataError(f"{temporary}: {error}; free some space, or give another folder with --cache") from error
        finally:
            temporary.unlink(missing_ok=True)
    return path


def remove_unfinished(cache: Path, frozen: FrozenSet) -> None:
    """Remove what a killed process has left of a set's sidecar, unless another process is building it."""
    with contextlib.suppress(SettingsError), _lock(cache, frozen):
        _temporary_path(cache, frozen).unlink(missing_ok=True)


def _temporary_path(cache: Path, frozen: FrozenSet) -> Path:
    return cache / f"{TEMPORARY_PREFIX}{sidecar_path(cache, frozen).name}"


def is_complete(path: Path, frozen: FrozenSet) -> bool:
    """Whether a file is the sidecar of a set, and what could not be read when it was built still cannot."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            facts = dict(connection.execute("SELECT name, value FROM facts"))
    except sqlite3.DatabaseError:
        return False
    if facts.get("digest") != frozen.lock.digest or facts.get("samples") != len(frozen):
        return False
    damaged = np.frombuffer(facts["damaged"], "<u4")[:_MAX_READ_AGAIN].tolist()
    return not any(_is_readable(frozen, row) for row in damaged)


def _is_readable(frozen: FrozenSet, row: int) -> bool:
    try:
        boxes_of_variants(frozen[row], frozen, row)
    except (DataError, OSError):
        return False
    return True


def _lock(cache: Path, frozen: FrozenSet) -> BinaryIO:
    path = cache / f"{frozen.lock.digest}.lock"
    return lock_folder(path, whose=f"{path}: another process builds this sidecar", instead="waiting for it")


@contextlib.contextmanager
def _locked(cache: Path, frozen: FrozenSet) -> Iterator[None]:
    """Hold the lock of a sidecar; wait for another process that does."""
    waiting = False
    while True:
        try:
            file = _lock(cache, frozen)
            break
        except SettingsError as error:
            if not waiting:
                _LOG.info("%s", error)
            waiting = True
            time.sleep(_PAUSE_S)
    with file:
        yield


def _build(frozen: FrozenSet, path: Path, workers: int, done: Callable[[int], object]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = OFF")  # a file that was not finished is removed
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        rows = len(frozen)
        columns = {"width": np.zeros(rows, "<u4"), "height": np.zeros(rows, "<u4"), "area": np.full(rows, np.nan)}
        postings = _Postings()
        damaged = array("I")
        for block in _blocks(frozen, workers):
            stop = block.start + len(block.texts)
            connection.executemany(
                "INSERT INTO text (rowid, body) VALUES (?, ?)", enumerate(block.texts, block.start + 1)
            )
            for name, values in (("width", block.width_px), ("height", block.height_px), ("area", block.area_px2)):
                columns[name][block.start : stop] = values
            postings.add(block.labels)
            damaged.extend(block.damaged)
            done(stop - block.start)
        connection.execute("INSERT INTO text (text) VALUES ('optimize')")
        _write_categories(connection, postings)
        del postings
        _write_columns(connection, columns, frozen)
        facts = {"digest": frozen.lock.digest, "samples": rows, "damaged": np.array(damaged, "<u4").tobytes()}
        connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        connection.execute("COMMIT")
    finally:
        connection.close()


def _blocks(frozen: FrozenSet, workers: int) -> Iterator[RowBlock]:
    """All rows of a set, block by block, in order."""
    rows = len(frozen)
    jobs = [(frozen, start, min(start + _ROWS_PER_BLOCK, rows)) for start in range(0, rows, _ROWS_PER_BLOCK)]
    if rows <= FEW_ROWS:
        yield from map(read_rows, jobs)
        return
    with LocalPool(workers) as pool:
        yield from _in_order(pool.run(read_rows, jobs))


def _in_order(blocks: Iterable[RowBlock]) -> Iterator[RowBlock]:
    early: list[tuple[int, RowBlock]] = []
    start = 0
    for block in blocks:
        heapq.heappush(early, (block.start, block))
        while early and early[0][0] == start:
            ready = heapq.heappop(early)[1]
            start += len(ready.texts)
            yield ready
    assert not early


class _Postings:
    """Pairs of a label and a row that has a box of it."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.labels = array("I")
        self.rows = array("I")

    def add(self, rows_by_label: dict[str, list[int]]) -> None:
        for label, rows in rows_by_label.items():
            number = self.ids.setdefault(label, len(self.ids))
            self.labels.extend([number] * len(rows))
            self.rows.extend(rows)


def _write_categories(connection: sqlite3.Connection, postings: _Postings) -> None:
    labels, rows = np.frombuffer(postings.labels, np.uint32), np.frombuffer(postings.rows, np.uint32)
    names = list(postings.ids)
    samples = np.bincount(labels, minlength=len(names))
    by_samples = np.argsort(-samples, kind="stable")
    rank = np.empty(len(names), np.uint32)
    rank[by_samples] = np.arange(len(names), dtype=np.uint32)
    rows = rows[np.argsort(rank[labels], kind="stable")].astype("<u4")  # by category, and in order of rows within
    ends = np.concatenate([[0], np.cumsum(samples[by_samples])])
    first = 0
    for chunk in range(len(names)):
        if first == len(names):
            break
        stop = max(first + 1, int(np.searchsorted(ends, ends[first] + _POSTINGS_PER_CHUNK, "right")) - 1)
        counts = np.diff(ends[first : stop + 1]).astype("<u4")
        connection.execute(
            "INSERT INTO chunk VALUES (?, ?, ?, ?)",
            (chunk, first, counts.tobytes(), rows[ends[first] : ends[stop]].tobytes()),
        )
        connection.executemany(
            "INSERT INTO category VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    number,
                    name,
                    name.casefold(),
                    int(ends[number + 1] - ends[number]),
                    chunk,
                    int(ends[number] - ends[first]),
                )
                for number, name in ((number, names[by_samples[number]]) for number in range(first, stop))
            ),
        )
        first = stop
    connection.execute("CREATE INDEX category_folded ON category (folded)")


def _write_columns(connection: sqlite3.Connection, columns: dict[str, NDArray[Any]], frozen: FrozenSet) -> None:
    """Image sizes, areas, and the complete set in every order but its own."""
    everything, index = np.arange(len(frozen)), frozen.index
    orders = {
        "by key": np.lexsort(INDEX_ORDERS["key"](frozen, everything)),
        "by boxes": np.argsort(index["boxes"], kind="stable"),
        "by length": np.argsort(index["text_chars"], kind="stable"),
    }
    area, pixels = columns["area"], columns["width"].astype(np.float64) * columns["height"]
    share = np.divide(area, pixels, out=np.full(len(frozen), np.nan), where=pixels > 0)
    orders |= {"by area": np.argsort(area, kind="stable"), "by smallest": np.argsort(share, kind="stable")}
    stored = {**columns, **{name: order.astype("<u4") for name, order in orders.items()}}
    connection.executemany(
        "INSERT INTO columns VALUES (?, ?)", ((name, data.tobytes()) for name, data in stored.items())
    )
