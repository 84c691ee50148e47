"""Writes the files of the sample data record by record, without holding them in memory.

The bytes depend only on the records, not on the version of Python.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import orjson

Record = dict[str, Any]

_PROTOCOL = 2


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write the records as JSONL."""
    with _opened(path) as file:
        file.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def write_array(path: Path, records: Iterable[Record]) -> None:
    """Write the records as one JSON array."""
    with _opened(path) as file:
        _write_array(file, records)
        file.write(b"\n")


def write_object(path: Path, members: Mapping[str, Iterable[Record]]) -> None:
    """Write one JSON object of arrays, like COCO's files."""
    with _opened(path) as file:
        for index, (name, records) in enumerate(members.items()):
            file.write((b"," if index else b"{") + orjson.dumps(name) + b":")
            _write_array(file, records)
        file.write(b"}\n")


def write_pickle(path: Path, records: Iterable[Record]) -> None:
    """Write the records as a pickled list."""
    with _opened(path) as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_LIST)
        for record in records:
            item = BytesIO()
            pickler = pickle.Pickler(item, _PROTOCOL)
            pickler.fast = True  # no memo: its use depends on the identity of strings
            pickler.dump(record)
            file.write(item.getvalue()[2:-1] + pickle.APPEND)  # without the header and the STOP opcode
        file.write(pickle.STOP)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; its folder is created if missing."""
    with _opened(path) as file:
        file.write(content)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing; its folder is created if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not name its file
        raise


def _write_array(file: IO[bytes], records: Iterable[Record]) -> None:
    file.write(b"[\n")
    for index, record in enumerate(records):
        file.write((b",\n" if index else b"") + orjson.dumps(record))
    file.write(b"\n]")
