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
        fault = key = None
        if window.data.startswith(b"{"):
            try:
                key = _telling_member(window)
            except DataError as error:  # lines, or damaged: the other way of reading will show
                fault, key = error, None
            if key:
                spans, _ = take_elements(window, enter_array(window, key))
                if _are_objects(spans):  # and not the paths of a line's pictures
                    yield from _heads([spans], key)
                    yield Head(member=key, element={})
    with opened() as file:
        looked_at, parsed = yield from _heads(element_spans(file, name), "")
    if key:
        yield Head(member=key, element={})
    if not looked_at:
        raise DataError(f"{name}: has no records")
    if fault and not parsed:
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


def _heads(found: Iterable[Spans], member: str) -> Generator[Head, None, tuple[int, int]]:
    """The first elements that parse to objects; returns how many were looked at, and how many parsed at all."""
    looked_at = parsed = 0
    for spans in found:
        for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True):
            if looked_at == _LOOK_AT:
                return looked_at, parsed
            looked_at += 1
            try:
                element = parse_json(spans.data[start:end])
            except Rejected:
                continue
            parsed += 1
            if isinstance(element, dict):
                yield Head(member=member, element=element)
    return looked_at, parsed
