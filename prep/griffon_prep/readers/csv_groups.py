"""CSV files of which consecutive rows belong together, such as the boxes of an image: where each group is in the file.

Files of gigabytes are read as a stream; a group takes 20 bytes of an index, from which any process reads it alone.
"""

import csv
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from griffon_prep.readers.fields import short
from griffon_prep.readers.rounds import image_key
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import write_whole

_GROUP = np.dtype([("key", "<u8"), ("offset", "<u8"), ("bytes", "<u4")])
_PIECE_BYTES = 1 << 22
_BOM = b"\xef\xbb\xbf"


def columns_of(start: bytes) -> list[str]:
    """Return the names in the first line of a CSV file."""
    line = start.removeprefix(_BOM).split(b"\n", 1)[0].strip(b"\r")
    return [name.strip() for name in _fields(line.decode("utf-8", "replace"))]


def _fields(line: str) -> list[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return [line]


def write_groups(file: Path, table: Path, column: str, collect: Callable[[bytes], None] | None = None) -> int:
    """Write an index of the groups of rows that are equal in a column, and return their number.

    Args:
        file: a CSV file with a line of column names.
        table: where to write the index.
        column: the column.
        collect: called with the value of each group, in order.

    Raises:
        DataError: there is no such column, a line is too long, or the rows of a group are not together.
    """
    keys, offsets, sizes = array("Q"), array("Q"), array("L")
    current, start, stop = None, 0, 0
    with file.open("rb") as opened:
        lines = _lines(opened, str(file))
        _, first = next(lines, (0, b""))
        names = columns_of(first)
        if column not in names:
            raise DataError(f"{file}: has no column {column}, its first line is {first[:80]!r}; download it again")
        place = names.index(column)
        for offset, line in lines:
            if not line.strip():
                continue
            value = (
                line.split(b",", place + 1)[place] if place and line.count(b",") >= place else line.split(b",", 1)[0]
            )
            value = value.strip()
            if value != current:
                if current is not None:
                    offsets.append(start)
                    sizes.append(stop - start)
                current, start = value, offset
                keys.append(image_key(value))
                if collect is not None:
                    collect(value)
            stop = offset + len(line)
        if current is not None:
            offsets.append(start)
            sizes.append(stop - start)
    rows = np.zeros(len(keys), _GROUP)
    rows["key"], rows["offset"], rows["bytes"] = keys, offsets, sizes
    _check_together(rows, file, column)
    write_whole(table, rows.tobytes())
    return len(rows)


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and text of each line, without its end."""
    base, rest = 0, b""
    start = file.read(len(_BOM))
    if start == _BOM:
        base = len(_BOM)
    else:
        rest = start
    while piece := file.read(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > 4 * _PIECE_BYTES:
            raise DataError(
                f"{name}: has a line of over {len(rest) >> 20} MiB at byte {base}, so this is no such CSV file"
            )
        for line in lines:
            yield base, line
            base += len(line) + 1
    if rest:
        yield base, rest


def _check_together(rows: np.ndarray, file: Path, column: str) -> None:
    order = np.argsort(rows["key"], kind="stable")
    keys = rows["key"][order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if not twice.size:
        return
    first, second = (int(rows["offset"][order[twice[0] + i]]) for i in (0, 1))
    raise DataError(
        f"{file}: rows of the same {column} are not together (bytes {first:,} and {second:,}), so an image's boxes "
        f"cannot be read at once; sort the rows: tail -n +2 {file.name} | LC_ALL=C sort -s -t, -k1,1"
    )


class CsvGroups:
    """Reads the groups of an indexed file, by number or by the value of their column."""

    def __init__(self, file: Path, table: Path, column: str) -> None:
        self._file = file.open("rb")
        self._rows = np.fromfile(table, _GROUP)
        self._column = column
        self._order = np.argsort(self._rows["key"], kind="stable")
        self._keys = self._rows["key"][self._order]
        start = os.pread(self._file.fileno(), 1 << 16, 0)
        self._columns = columns_of(start)

    def __getitem__(self, number: int) -> list[Mapping[str, str]]:
        """Return the rows of a group, each by column.

        Raises:
            Rejected: a row has more or fewer fields than there are columns, or is not UTF-8; or the rows differ in
                the column, because a quoted field before it has a comma.
        """
        row = self._rows[number]
        raw = os.pread(self._file.fileno(), int(row["bytes"]), int(row["offset"]))
        rows = [self._row(line.strip(b"\r")) for line in raw.split(b"\n") if line.strip()]
        if others := {row[self._column] for row in rows} - {rows[0][self._column]}:
            raise Rejected("bad_record", f"a quoted field has a comma before {self._column}, of {short(min(others))}")
        return rows

    def _row(self, line: bytes) -> Mapping[str, str]:
        try:
            fields: Sequence[str] = _fields(line.decode())
        except UnicodeDecodeError:
            raise Rejected("bad_record", f"a row is not UTF-8: {line[:80]!r}") from None
        if len(fields) != len(self._columns):
            raise Rejected(
                "bad_record", f"a row has {len(fields)} fields, expected {len(self._columns)}: {line[:80]!r}"
            )
        return dict(zip(self._columns, map(str.strip, fields), strict=True))

    def of(self, value: str) -> list[Mapping[str, str]]:
        """Return the rows of the group with this value; none if there is no such group."""
        key = image_key(value.encode())
        index = int(np.searchsorted(self._keys, np.uint64(key)))
        if index == len(self._keys) or int(self._keys[index]) != key:
            return []
        return [row for row in self[int(self._order[index])] if row[self._column] == value]
