"""What a file begins with, by which its format is found; read from a stream, so that a packed file is not unpacked."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from griffon_prep.readers.base import Head
from griffon_prep.readers.json_members import enter_array, members, skip_value
from griffon_prep.readers.json_records import parse_json
from griffon_prep.readers.json_spans import Spans, Window, element_spans, take_elements
from griffon_prep.readers.plain_pickle import is_pickle
from griffon_prep.records import Rejected
from griffon_shards.errors import DataError

_LOOK_AT = 100  # elements
_TELLING = ("images", "annotations")


def file_heads(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> Iterator[Head]:
    """What a file may be taken for; the first that a format recognises counts.

    Args:
        opened: opens the file at its start.
        name: of the file, for errors.

    Raises:
        DataError: the file is empty, or damaged before its first element.
    """
    with opened() as file:
        window = Window(file, name)
        if is_pickle(window.data):
            yield Head(member="pickle", element={})
            return
        window.skip_blanks()
        if window.data.startswith(b"{") and (key := _telling_member(window)):
            spans, _ = take_elements(window, enter_array(window, key))
            yield from _heads([spans], key)
            yield Head(member=key, element={})
    with opened() as file:
        looked_at = yield from _heads(element_spans(file, name), "")
    if not looked_at:
        raise DataError(f"{name}: has no records")


def _telling_member(window: Window) -> str | None:
    """Read on to the array that says what the file is, if it is one large object and has such an array."""
    try:
        for key in members(window):
            if key in _TELLING and window.data.startswith(b"["):
                return key
            skip_value(window)
    except DataError:  # lines, or damaged: the other way of reading will say
        return None
    return None


def _heads(found: Iterable[Spans], member: str) -> Generator[Head, None, int]:
    """The first elements that parse; returns how many were looked at."""
    looked_at = 0
    for spans in found:
        for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True):
            if looked_at == _LOOK_AT:
                return looked_at
            looked_at += 1
            try:
                element = parse_json(spans.data[start:end])
            except Rejected:
                continue
            if isinstance(element, dict):
                yield Head(member=member, element=element)
    return looked_at
