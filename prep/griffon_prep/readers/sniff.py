"""Reads the beginning of a file, or of files in a folder, to detect a format; compressed files are read as a stream."""

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from griffon_prep.readers.base import Head
from griffon_prep.readers.csv_groups import columns_of
from griffon_prep.readers.folders import files_below
from griffon_prep.readers.foreign import other_make
from griffon_prep.readers.jsonscan.members import TooManyMembers, enter_array, members, skip_value
from griffon_prep.readers.jsonscan.records import parse_json
from griffon_prep.readers.jsonscan.spans import Spans, Window, element_spans
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError

PARQUET = b"PAR1"
"""First bytes of a Parquet file."""

_LOOK_AT = 100  # elements
_LOOK_AT_FILES = 20  # of a folder
_START_BYTES = 1 << 16
_YAML_KEY = re.compile(rb"^([A-Za-z_]\w*)[ \t]*:(?:\s|$)", re.MULTILINE)
_XML_ROOT = re.compile(rb"\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*)*<([A-Za-z_][\w.-]*)", re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_SHOWN_KEYS = 8
_TELLING = ("images", "annotations")
_OF_A_PATH = {"path", "bytes"}


def file_heads(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> Iterator[Head]:
    """Yield possible beginnings of a file; the first one that a format recognises decides.

    Args:
        opened: opens the file at its start.
        name: the file's name, for error messages.

    Raises:
        DataError: the file is empty, or damaged before its first element.
    """
    fault = None
    with opened() as file:
        window = Window(file, name)
        if is_pickle(window.data):
            yield Head(member="pickle", element={})
            return
        window.skip_blanks()
        key = None
        if window.data.startswith(b"{"):
            try:
                key = _telling_member(window)
            except TooManyMembers:
                return
            except DataError as error:  # JSONL, or damaged: reading it as elements decides
                fault, key = error, None
            if key:
                spans = enter_array(window, key).take()
                if _are_objects(spans):  # and not image paths in a JSONL record
                    yield from _heads([spans], key)
                    yield Head(member=key, element={})
                    return
    with opened() as file:
        looked_at = yield from _heads(element_spans(file, name), "")
    if key:
        yield Head(member=key, element={})
    if not looked_at:
        raise DataError(f"{name}: has no records")
    if fault:
        raise fault


def text_heads(opened: Callable[[], AbstractContextManager[BinaryIO]]) -> Iterator[Head]:
    """Yield the beginning of a file as that of CSV, if its first line has column names, or of YAML, if it has keys."""
    with opened() as file:
        start = file.read(_START_BYTES).removeprefix(_BOM)
    if start.startswith(PARQUET):
        yield Head(member="parquet", element={})
        return
    if start.lstrip().startswith((b"{", b"[", b"\x80")):
        return
    columns = columns_of(start)
    if len(columns) > 1 and all(map(str.isidentifier, columns)):
        yield Head(member="csv", element=dict.fromkeys(columns))
    if keys := _YAML_KEY.findall(start):
        yield Head(member="yaml", element={key.decode(): None for key in keys})


def folder_heads(folder: Path) -> Iterator[Head]:
    """Yield the beginnings of the first XML and JSON files of a folder."""
    if files_below(folder, frozenset({".parquet"})):
        yield Head(member="parquet", element={})
    if (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir():
        yield Head(member="folder of sentences", element={})
    for ending in (".xml", ".json"):
        for name in files_below(folder, frozenset({ending}))[:_LOOK_AT_FILES]:
            data = (folder / name).read_bytes().removeprefix(_BOM)
            if ending == ".xml" and (root := _XML_ROOT.match(data)):
                yield Head(member="folder of XML", element={root[1].decode(): None})
            elif ending == ".json":
                with suppress(Rejected):
                    element = parse_json(data)
                    if isinstance(element, dict):
                        yield Head(member="folder of JSON", element=element)


def _telling_member(window: Window) -> str | None:
    """Move on to the first array that identifies the file, if it is one large object with such an array."""
    for key in members(window):
        if key in _TELLING and window.data.startswith(b"["):
            return key
        skip_value(window)
    return None


def _are_objects(spans: Spans) -> bool:
    """Whether the first element is an object, and not the path of an image (in `images` of a conversation)."""
    if not spans.starts.size or not spans.data[int(spans.starts[0]) :].lstrip().startswith(b"{"):
        return False
    with suppress(Rejected):
        element = parse_json(next(spans.texts()))
        return not (isinstance(element, dict) and element and element.keys() <= _OF_A_PATH)
    return True


def described(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> str:
    """Describe the content of a file that no format recognises, with a remedy, for a message."""
    keys: list[str] = []
    with opened() as file:
        window = Window(file, name)
        window.skip_blanks()
        line = window.line
        try:
            for key in members(window):
                keys.append(key)
                skip_value(window)
            lines = window.line - line
            window.skip_blanks()
        except TooManyMembers:
            return "it is one JSON object with over 100 members, perhaps keyed by ids; expected an array of records"
        except DataError:
            window.data, lines = b"", 0
        if lines and window.data.startswith(b"{"):
            return "it holds JSON objects of several lines each; convert it to JSONL with `jq -c .`"
    first = keys or next((list(head.element) for head in file_heads(opened, name) if head.element), [])
    if make := other_make(first):
        return f"it holds {make}"
    return (
        f"it begins with an object with the keys {', '.join(first[:_SHOWN_KEYS])}"
        if first
        else "its first elements have no JSON object"
    )


def _heads(parts: Iterable[Spans], member: str) -> Generator[Head, None, int]:
    """Yield the first elements that parse to objects; returns the number of elements looked at."""
    looked_at = 0
    for spans in parts:
        for text in spans.texts():
            if looked_at == _LOOK_AT:
                return looked_at
            looked_at += 1
            with suppress(Rejected):
                element = parse_json(text)
                if isinstance(element, dict):
                    yield Head(member=member, element=element)
    return looked_at
