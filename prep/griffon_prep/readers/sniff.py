"""Reads the beginning of a file to detect its format; it reads a stream, so compressed files stay compressed."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import BinaryIO

from griffon_prep.readers.base import Head
from griffon_prep.readers.foreign import other_make
from griffon_prep.readers.jsonscan.members import TooManyMembers, enter_array, members, skip_value
from griffon_prep.readers.jsonscan.records import parse_json
from griffon_prep.readers.jsonscan.spans import Spans, Window, element_spans
from griffon_prep.readers.restricted_pickle import is_pickle
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError

_LOOK_AT = 100  # elements
_SHOWN_KEYS = 8
_TELLING = ("images", "annotations")


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


def _telling_member(window: Window) -> str | None:
    """Move on to the first array that identifies the file, if it is one large object with such an array."""
    for key in members(window):
        if key in _TELLING and window.data.startswith(b"["):
            return key
        skip_value(window)
    return None


def _are_objects(spans: Spans) -> bool:
    return bool(spans.starts.size) and spans.data[int(spans.starts[0]) :].lstrip().startswith(b"{")


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
