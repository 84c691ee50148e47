"""Index of a JSON array or JSONL file: the span of each record, and reading of records by number.

Scanning writes 16 bytes per record; reading takes two `pread`s, so any process can read any range of a file of any size
on its own. A second, small table holds line numbers, for error messages.
"""

import contextlib
import os
import struct
from collections.abc import Callable
from json import loads as lenient_loads
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.jsonscan.damage import RepeatedKey, check_keys, first_fault
from griffon_prep.readers.jsonscan.spans import Spans, element_spans
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file
from griffon_shards.support.tables import counted

_SPAN_DTYPE = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("part", "<u4")])
_LOOK_AT = 100  # elements
_NEWLINE = b"\n"
_LINE_DTYPE = np.dtype([("offset", "<u8"), ("line", "<u8")])
_SPAN = struct.Struct("<QII")  # a row of `_SPAN_DTYPE`


def scan_json(annotation: Path, table: Path, parts_of: Callable[[bytes], int] | None) -> int:
    """Write the table of records of an annotation file and return the number of records.

    Args:
        annotation: a JSON array or JSONL.
        table: where to write the table.
        parts_of: called with the text of each element, in order; returns the number of records in it. None: one each.

    Raises:
        DataError: the file is a JSON array that never ends or whose elements cannot be told apart; a record is too
            large; or none of the first records is valid JSON.
    """
    records = elements = 0
    look = _FirstLook(str(annotation))
    with annotation.open("rb") as file, whole_file(table) as out, whole_file(lines_beside(table)) as lines:
        for spans in element_spans(file, str(annotation)):
            look.at(spans)
            lines.write(line_row(spans).tobytes())
            rows = span_rows(spans)
            if parts_of is not None:
                parts = _parts(spans, parts_of, str(annotation), elements)
                rows = np.repeat(rows, parts)
                firsts = np.cumsum(parts) - parts
                rows["part"] = np.arange(len(rows)) - np.repeat(firsts, parts)
            records += len(rows)
            elements += spans.starts.size
            out.write(rows.tobytes())
        look.judge()
    return records


def _parts(spans: Spans, parts_of: Callable[[bytes], int], file: str, first: int) -> NDArray[np.int64]:
    """Return the number of records in each element; `first` is the number of the first one."""
    parts: list[int] = []
    for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
        try:
            parts.append(parts_of(text))
        except RepeatedKey as fault:
            raise fault.described(file, f"element {first + len(parts)} (from 0)", spans.place(start)) from None
    return np.array(parts, np.int64)


class _FirstLook:
    """Checks that the first elements of a file are JSON: an array without its first bracket looks like JSONL."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._found = False
        self._fault = ""

    def at(self, spans: Spans) -> None:
        """Check some elements, unless enough were checked."""
        for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
            if self._found or self._count == _LOOK_AT:
                return
            self._count += 1
            fault = first_fault(text)
            self._found = fault is None
            if fault and not self._fault:
                self._fault = f"{spans.place(start + fault.offset)}: {fault.what}"

    def judge(self) -> None:
        """Raise DataError if no element was valid JSON."""
        if self._count and not self._found:
            raise DataError(
                f"{self._name}: neither a JSON array nor JSONL, no valid JSON in its first "
                f"{counted(self._count, 'record')}; {self._fault}; fix the file there, or download it again"
            )


def span_rows(spans: Spans) -> NDArray[np.void]:
    """Return the rows of a table of spans, one per element."""
    rows = np.zeros(len(spans.starts), _SPAN_DTYPE)
    rows["offset"], rows["bytes"] = spans.starts + spans.base, spans.ends - spans.starts
    return rows


def line_row(spans: Spans) -> NDArray[np.void]:
    """Return the row of a table of line numbers for the start of these elements."""
    return np.array([(spans.base, spans.line)], _LINE_DTYPE)


def lines_beside(table: Path) -> Path:
    """Return the path of the line number table that belongs to a table of spans."""
    return table.with_suffix(".lines")


class JsonRecords:
    """Reads the records of a scanned file by number."""

    def __init__(self, annotation: Path, table: Path) -> None:
        self._text = annotation.open("rb")
        self._table = table.open("rb")
        self._lines = lines_beside(table)

    def __getitem__(self, record_no: int) -> tuple[dict[str, Any], int]:
        """Return the parsed object that holds record `record_no`, and the record's index among those of the object.

        Raises:
            Rejected: `bad_json`, or `bad_record` if it is not an object.
            DataError: an object in it has a key twice.
        """
        row = os.pread(self._table.fileno(), _SPAN_DTYPE.itemsize, record_no * _SPAN_DTYPE.itemsize)
        offset, size, part = _SPAN.unpack(row)
        text = os.pread(self._text.fileno(), size, offset)
        what = f"record {record_no} (from 0)"
        return _object(parse_placed(text, self._place, offset, self._text.name, what)), part

    def _place(self, offset: int) -> str:
        rows = np.fromfile(self._lines, _LINE_DTYPE)
        start, line = rows[np.searchsorted(rows["offset"], offset, "right") - 1].tolist()
        return f"line {line + os.pread(self._text.fileno(), offset - start, start).count(_NEWLINE)}, byte {offset}"


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        Rejected: `bad_json`, or `bad_record` if it is another value.
        RepeatedKey: an object in it has a key twice.
    """
    value = parse_json(text)
    check_keys(text, value)
    return _object(value)


def _object(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the file holds
    if not isinstance(value, dict):
        raise Rejected("bad_record", f"expected an object, got {type(value).__name__}")
    return value


def parse_json(text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one JSON value. NaN, Infinity and 1e999 are accepted: they invalidate a box, not the record.

    Raises:
        Rejected: `bad_json`.
    """
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    try:
        value = lenient_loads(text)
        orjson.dumps(value)  # values that cannot be written (lone surrogates, huge integers) cannot become a sample
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected("bad_json", str(error)) from None
    return value


def parse_placed(text: bytes, place_of: Callable[[int], str], start: int, file: str, what: str) -> Any:  # noqa: ANN401
    """As `parse_json`, with the position in the file in the detail of the error.

    Args:
        text: text of the value.
        place_of: describes the position of an offset in the file.
        start: offset of the text.
        file: name of the file, for messages.
        what: the value, for messages.

    Raises:
        Rejected: `bad_json`.
        DataError: an object in it has a key twice.
    """
    try:
        value = parse_json(text)
        check_keys(text, value)
    except Rejected as rejected:
        fault = first_fault(text)
        what = fault.what if fault else rejected.detail
        raise Rejected("bad_json", f"{place_of(start + (fault.offset if fault else 0))}: {what}") from None
    except RepeatedKey as repeated:
        raise repeated.described(file, what, place_of(start)) from None
    return value
