"""Reads the sidecar of a set. Threads may share it: each has a connection of its own."""

import sqlite3
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from griffon_shards.support.errors import DataError
from griffon_shards.view.errors import TooSlowError
from griffon_shards.view.text_index import match_expression

Rows = NDArray[np.uint32]
Mask = NDArray[np.bool_]

_QUERY_S = 5.0
_STEPS_BETWEEN_CHECKS = 100_000
_CACHE_KIB = 4_000
_AFTER_ALL = "\U0010ffff"


class Sidecar:
    """The sidecar at a path, which `sidecar_build.ensure_sidecar` has built.

    Attributes:
        samples: number of samples of the set.
        damaged: number of them that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        facts = dict(self._connection.execute("SELECT name, value FROM facts"))
        self.samples: int = facts["samples"]
        self.damaged: int = len(facts["damaged"]) // 4

    @cached_property
    def width_px(self) -> NDArray[np.uint32]:
        """Widths of the images, shape [samples]; 0 without an image."""
        return self._column("width", "<u4")

    @cached_property
    def height_px(self) -> NDArray[np.uint32]:
        """Heights of the images, shape [samples]."""
        return self._column("height", "<u4")

    @cached_property
    def area_px2(self) -> NDArray[np.float64]:
        """Areas of the smallest boxes, shape [samples]; NaN without boxes."""
        return self._column("area", "<f8")

    def smallest_percent(self) -> NDArray[np.float64]:
        """Areas of the smallest boxes in percent of their images, shape [samples]; NaN without boxes."""
        pixels = self.width_px.astype(np.float64) * self.height_px
        nothing = np.full(self.samples, np.nan)
        percent: NDArray[np.float64] = np.divide(100 * self.area_px2, pixels, out=nothing, where=pixels > 0)
        return percent

    def order(self, name: str) -> Rows:
        """All rows in an order of `filters.SORTS` other than `order`, ascending, those without a value last."""
        return self._column(f"by {name}", "<u4")

    def rows_with_text(self, query: str) -> Rows:
        """The rows whose texts hold every word and phrase of a query, ascending.

        Raises:
            SettingsError: the query has no word, or too many.
            TooSlowError: it took too long.
        """
        expression = match_expression(query)
        # One text of all numbers is read much faster than a million rows.
        (numbers,) = self._query("SELECT group_concat(rowid) FROM text WHERE text MATCH ?", expression)[0]
        return np.fromstring(numbers or "", np.uint32, sep=",") - np.uint32(1)

    def rows_with_category(self, name: str) -> Rows:
        """The rows that have a box of a category, ascending; none for an unknown name."""
        places = self._query("SELECT chunk, offset, samples FROM category WHERE name = ?", name)
        if not places:
            return np.array([], np.uint32)
        chunk, offset, samples = places[0]
        data = self._query("SELECT substr(rows, ?, ?) FROM chunk WHERE id = ?", 4 * offset + 1, 4 * samples, chunk)[0][
            0
        ]
        rows: Rows = np.frombuffer(data, "<u4")
        return rows

    def categories(self, prefix: str, mask: Mask | None, limit: int) -> tuple[list[tuple[str, int]], int]:
        """Names of categories and their number of samples, the most first.

        Args:
            prefix: start of the names; case is ignored.
            mask: the samples that count, shape [samples]; None for all.
            limit: the most names.

        Returns:
            The names, and the number of all categories that have a sample.
        """
        folded = prefix.casefold()
        if mask is None:
            bounds = folded, folded + _AFTER_ALL
            where = "WHERE folded >= ? AND folded < ?"
            ((total,),) = self._query(f"SELECT count(*) FROM category {where}", *bounds)
            return self._query(f"SELECT name, samples FROM category {where} ORDER BY id LIMIT ?", *bounds, limit), total
        counts = self._category_counts(mask)
        if folded:
            ids = self._query("SELECT id FROM category WHERE folded >= ? AND folded < ?", folded, folded + _AFTER_ALL)
            matches = np.array(ids, np.int64).reshape(-1)
        else:
            matches = np.arange(len(counts))
        matches = matches[counts[matches] > 0]
        top = np.sort(matches)[np.argsort(-counts[np.sort(matches)], kind="stable")][:limit].tolist()
        marks = ",".join("?" * len(top))
        names = dict(self._query(f"SELECT id, name FROM category WHERE id IN ({marks})", *top))
        return [(names[number], int(counts[number])) for number in top], len(matches)

    def _category_counts(self, mask: Mask) -> NDArray[np.int64]:
        parts = [np.array([], np.int64)]
        for samples, rows in self._connection.execute("SELECT samples, rows FROM chunk ORDER BY id"):
            per_category = np.frombuffer(samples, "<u4").astype(np.int64)
            starts = np.cumsum(per_category) - per_category
            parts.append(np.add.reduceat(mask[np.frombuffer(rows, "<u4")], starts, dtype=np.int64))
        return np.concatenate(parts)

    def _column(self, name: str, dtype: str) -> NDArray[Any]:
        values: NDArray[Any] = np.frombuffer(self._query("SELECT data FROM columns WHERE name = ?", name)[0][0], dtype)
        return values

    def _query(self, statement: str, *values: object) -> list[Any]:
        """All rows of a query.

        Raises:
            TooSlowError: it took too long.
            DataError: the sidecar is damaged.
        """
        connection = self._connection
        deadline = time.monotonic() + _QUERY_S
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
        try:
            return connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            if time.monotonic() > deadline:
                raise TooSlowError from error
            raise DataError(
                f"{self._path}: damaged ({error}); stop griffon-shards view, delete this file and start it again"
            ) from error
        finally:
            connection.set_progress_handler(None, 0)

    @property
    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._local.connection = connection
        return connection
