"""What a file begins with, by which its format is found; read from a stream, so that a packed file is not unpacked."""

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
    """What a file may be taken for; the first that a format recognises counts.

    Args:
        opened: opens the file at its start.
        name: of the file, for errors.

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
            except DataError as error:  # lines, or damaged: the other way of reading will show
                fault, key = error, None
            if key:
                spans = enter_array(window, key).take()
                if _are_objects(spans):  # and not the paths of a line's pictures
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
    """Read on to the array that says what the file is, if it is one large object and has such an array."""
    for key in members(window):
        if key in _TELLING and window.data.startswith(b"["):
            return key
        skip_value(window)
    return None


def _are_objects(spans: Spans) -> bool:
    return bool(spans.starts.size) and spans.data[int(spans.starts[0]) :].lstrip().startswith(b"{")


def described(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> str:
    """What a file that no format recognises holds, and what could be done about it, for a message."""
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
            return "it is one JSON object of over 100 members, as if keyed by ids; expected an array of records"
        except DataError:
            window.data, lines = b"", 0
        if lines and window.data.startswith(b"{"):
            return "it holds JSON objects of several lines each; `jq -c .` writes each on one line, as JSONL has it"
    first = keys or next((list(head.element) for head in file_heads(opened, name) if head.element), [])
    if make := other_make(first):
        return f"it holds {make}"
    return (
        f"it begins with an object of {', '.join(first[:_SHOWN_KEYS])}"
        if first
        else "no JSON object is in its first elements"
    )


def _heads(found: Iterable[Spans], member: str) -> Generator[Head, None, int]:
    """The first elements that parse to objects; returns how many were looked at."""
    looked_at = 0
    for spans in found:
        for text in spans.texts():
            if looked_at == _LOOK_AT:
                return looked_at
            looked_at += 1
            with suppress(Rejected):
                element = parse_json(text)
                if isinstance(element, dict):
                    yield Head(member=member, element=element)
    return looked_at
