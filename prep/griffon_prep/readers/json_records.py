"""Annotations that are one JSON value a record, as an array or as lines: an index of spans, and reading by number.

Scanning writes 16 bytes a record; reading is two `pread`s, so any process can
read any range of a file of any size alone.
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

from griffon_prep.readers.json_spans import Spans, element_spans
from griffon_prep.records import Rejected
from griffon_shards.files import whole_file

_SPAN_DTYPE = np.dtype([("offset", "<u8"), ("bytes", "<u4"), ("part", "<u4")])
_SPAN = struct.Struct("<QII")  # a row of it


def scan_json(annotation: Path, table: Path, parts_of: Callable[[bytes], int] | None) -> int:
    """Write the table of records of an annotation file and return how many there are.

    Args:
        annotation: a JSON array or JSONL.
        table: where to write the table.
        parts_of: called with the text of every element, in order: how many records it holds. None: one each.

    Raises:
        DataError: the file is a JSON array without an end, or a record is too large for one.
    """
    records = 0
    with annotation.open("rb") as file, whole_file(table) as out:
        for spans in element_spans(file, str(annotation)):
            rows = span_rows(spans)
            if parts_of is not None:
                bounds = zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
                parts = np.array([parts_of(spans.data[start:end]) for start, end in bounds], np.int64)
                rows = np.repeat(rows, parts)
                firsts = np.cumsum(parts) - parts
                rows["part"] = np.arange(len(rows)) - np.repeat(firsts, parts)
            records += len(rows)
            out.write(rows.tobytes())
    return records


def span_rows(spans: Spans) -> NDArray[np.void]:
    """Rows of a table of spans, one for each element."""
    rows = np.zeros(len(spans.starts), _SPAN_DTYPE)
    rows["offset"], rows["bytes"] = spans.starts + spans.base, spans.ends - spans.starts
    return rows


class SpanTable:
    """Reads the texts of a scanned file by number."""

    def __init__(self, annotation: Path, table: Path) -> None:
        self._text = annotation.open("rb")
        self._table = table.open("rb")

    def __getitem__(self, number: int) -> tuple[bytes, int]:
        """The text that holds record `number`, and which of the records in it that is."""
        row = os.pread(self._table.fileno(), _SPAN_DTYPE.itemsize, number * _SPAN_DTYPE.itemsize)
        offset, size, part = _SPAN.unpack(row)
        return os.pread(self._text.fileno(), size, offset), part


class JsonRecords:
    """Reads the records of a scanned file by number."""

    def __init__(self, annotation: Path, table: Path) -> None:
        self._table = SpanTable(annotation, table)

    def __getitem__(self, record_no: int) -> tuple[dict[str, Any], int]:
        """The parsed object that holds record `record_no`, and which of the records in it that is.

        Raises:
            Rejected: `bad_json`, or `bad_record` if it is not an object.
        """
        text, part = self._table[record_no]
        return parse_object(text), part


def parse_object(text: bytes) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        Rejected: `bad_json`, or `bad_record` if it is another value.
    """
    value = parse_json(text)
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
