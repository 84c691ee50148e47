"""Annotations that are one JSON value a record, as an array or as lines: an index of spans, and reading by number.

Scanning writes 16 bytes a record; reading is two `pread`s, so any process can read any range of a file of any size
alone. Beside the table of spans stands a small one of line numbers, for whoever must say where damage is.
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

from griffon_prep.readers.jsonscan.damage import first_fault
from griffon_prep.readers.jsonscan.spans import Spans, element_spans
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file

_SPAN_DTYPE = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("part", "<u4")])
_LOOK_AT = 100  # elements
_NEWLINE = b"\n"
_LINE_DTYPE = np.dtype([("offset", "<u8"), ("line", "<u8")])
_SPAN = struct.Struct("<QII")  # a row of it


def scan_json(annotation: Path, table: Path, parts_of: Callable[[bytes], int] | None) -> int:
    """Write the table of records of an annotation file and return how many there are.

    Args:
        annotation: a JSON array or JSONL.
        table: where to write the table.
        parts_of: called with the text of every element, in order: how many records it holds. None: one each.

    Raises:
        DataError: the file is a JSON array without an end, or one whose elements cannot be told apart; a record is too
            large for one; or none of the first records is JSON.
    """
    records = 0
    look = _FirstLook(str(annotation))
    with annotation.open("rb") as file, whole_file(table) as out, whole_file(lines_beside(table)) as lines:
        for spans in element_spans(file, str(annotation)):
            look.at(spans)
            lines.write(line_row(spans).tobytes())
            rows = span_rows(spans)
            if parts_of is not None:
                bounds = zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
                parts = np.array([parts_of(spans.data[start:end]) for start, end in bounds], np.int64)
                rows = np.repeat(rows, parts)
                firsts = np.cumsum(parts) - parts
                rows["part"] = np.arange(len(rows)) - np.repeat(firsts, parts)
            records += len(rows)
            out.write(rows.tobytes())
        look.judge()
    return records


class _FirstLook:
    """Whether the first elements of a file are JSON: one that has lost its first bracket looks like lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._found = False
        self._fault = ""

    def at(self, spans: Spans) -> None:
        """Look at some elements, unless enough is seen."""
        for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
            if self._found or self._count == _LOOK_AT:
                return
            self._count += 1
            fault = first_fault(text)
            self._found = fault is None
            if fault and not self._fault:
                self._fault = f"{spans.place(start + fault.offset)}: {fault.what}"

    def judge(self) -> None:
        """Raises DataError if none was JSON."""
        if self._count and not self._found:
            raise DataError(
                f"{self._name}: neither a JSON array nor JSONL, none of its first {self._count} records is JSON; "
                f"{self._fault}; mend the file there, or fetch it again"
            )


def span_rows(spans: Spans) -> NDArray[np.void]:
    """Rows of a table of spans, one for each element."""
    rows = np.zeros(len(spans.starts), _SPAN_DTYPE)
    rows["offset"], rows["bytes"] = spans.starts + spans.base, spans.ends - spans.starts
    return rows


def line_row(spans: Spans) -> NDArray[np.void]:
    """The row of a table of line numbers that says on which line these elements begin."""
    return np.array([(spans.base, spans.line)], _LINE_DTYPE)


def lines_beside(table: Path) -> Path:
    """The table of line numbers that belongs to a table of spans."""
    return table.with_suffix(".lines")


class JsonRecords:
    """Reads the records of a scanned file by number."""

    def __init__(self, annotation: Path, table: Path) -> None:
        self._text = annotation.open("rb")
        self._table = table.open("rb")

        self._lines = lines_beside(table)

    def __getitem__(self, record_no: int) -> tuple[dict[str, Any], int]:
        """The parsed object that holds record `record_no`, and which of the records in it that is.

        Raises:
            Rejected: `bad_json`, or `bad_record` if it is not an object.
        """
        row = os.pread(self._table.fileno(), _SPAN_DTYPE.itemsize, record_no * _SPAN_DTYPE.itemsize)
        offset, size, part = _SPAN.unpack(row)
        text = os.pread(self._text.fileno(), size, offset)
        return _object(parse_placed(text, self._place, offset)), part

    def _place(self, offset: int) -> str:
        rows = np.fromfile(self._lines, _LINE_DTYPE)
        start, line = rows[np.searchsorted(rows["offset"], offset, "right") - 1].tolist()
        return f"line {line + os.pread(self._text.fileno(), offset - start, start).count(_NEWLINE)}, byte {offset}"


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        Rejected: `bad_json`, or `bad_record` if it is another value.
    """
    return _object(parse_json(text))


def _object(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the file holds
    if not isinstance(value, dict):
        raise Rejected("bad_record", f"expected an object, got {type(value).__name__}")
    return value


def parse_json(text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one JSON value. NaN, Infinity and 1e999 are read as Python does: a box of them is dropped, not the record.

    Raises:
        Rejected: `bad_json`.
    """
    with contextlib.suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    try:
        value = lenient_loads(text)
        orjson.dumps(value)  # what cannot be written again (lone surrogates, huge integers) cannot become a sample
    except (ValueError, TypeError, RecursionError) as error:
        raise Rejected("bad_json", str(error)) from None
    return value


def parse_placed(text: bytes, place: Callable[[int], str], start: int) -> Any:  # noqa: ANN401 - whatever the file holds
    """As `parse_json`, and the detail says where in the file it fails.

    Args:
        text: of the value.
        place: says where in the file an offset is.
        start: the offset at which the text begins.

    Raises:
        Rejected: `bad_json`.
    """
    try:
        return parse_json(text)
    except Rejected as rejected:
        fault = first_fault(text)
        what = fault.what if fault else rejected.detail
        raise Rejected("bad_json", f"{place(start + (fault.offset if fault else 0))}: {what}") from None
