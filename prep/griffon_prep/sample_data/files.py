"""The forms of file that the sample data are written in, one record after another: nothing is held in memory.

The bytes are a function of the records alone, on every version of Python.
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
    """A JSONL file of the records."""
    with _opened(path) as file:
        file.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def write_array(path: Path, records: Iterable[Record]) -> None:
    """A JSON file that is one array of the records."""
    with _opened(path) as file:
        _write_array(file, records)
        file.write(b"\n")


def write_object(path: Path, members: Mapping[str, Iterable[Record]]) -> None:
    """A JSON file that is one object of arrays, as COCO's files are."""
    with _opened(path) as file:
        for place, (name, records) in enumerate(members.items()):
            file.write((b"," if place else b"{") + orjson.dumps(name) + b":")
            _write_array(file, records)
        file.write(b"}\n")


def write_pickle(path: Path, records: Iterable[Record]) -> None:
    """A pickled list of the records."""
    with _opened(path) as file:
        file.write(pickle.PROTO + bytes([_PROTOCOL]) + pickle.EMPTY_LIST)
        for record in records:
            item = BytesIO()
            pickler = pickle.Pickler(item, _PROTOCOL)
            pickler.fast = True  # no memo, whose use depends on which of the record's strings are one object
            pickler.dump(record)
            file.write(item.getvalue()[2:-1] + pickle.APPEND)  # less what begins and ends a pickle
        file.write(pickle.STOP)


def write_bytes(path: Path, content: bytes) -> None:
    """A file of these bytes, its folder made if need be."""
    with _opened(path) as file:
        file.write(content)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A new file for writing, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails does not say of which file
        raise


def _write_array(file: IO[bytes], records: Iterable[Record]) -> None:
    file.write(b"[\n")
    for place, record in enumerate(records):
        file.write((b",\n" if place else b"") + orjson.dumps(record))
    file.write(b"\n]")
