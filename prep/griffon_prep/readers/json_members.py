"""One large JSON object, as COCO's files are: its members in order, without holding or parsing the file.

Long arrays in it are decoded in pieces. A piece is cut where two objects seem to meet; the decoder itself proves the
cut, for a text in brackets is one whole JSON array only if it was cut between elements.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from griffon_prep.readers.json_records import parse_json
from griffon_prep.readers.json_spans import Spans, Window, array_spans, take_elements
from griffon_prep.records import Rejected
from griffon_shards.errors import DataError

_PIECE = 1 << 18  # what a decoder makes of it stays in the processor's cache
_TRIES = 8
_NOT_TAKEN = (msgspec.DecodeError, RecursionError)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]++(?=[\s,\]}])')
_MEETING = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\Z")

Value = TypeVar("Value")


def members(window: Window) -> Iterator[str]:
    """The keys of the object at the window's start. At each, the window is at the value: the caller takes or skips it.

    Raises:
        DataError: the text is no JSON object, or never ends.
    """
    _expect(window, b"{")
    window.skip_blanks()
    if window.data.startswith(b"}"):
        window.let_go(1)
        return
    mark = b","
    while mark == b",":
        window.skip_blanks()
        key = _parsed(window, _take(window, _STRING))
        _expect(window, b":")
        window.skip_blanks()
        yield str(key)
        mark = _expect(window, b",}")


def skip_value(window: Window) -> None:
    """Move on behind the value at the window's start."""
    first = window.data[:1]
    if first in (b"[", b"{"):
        window.let_go(1)
        for _ in array_spans(window):
            pass
    else:
        _take(window, _STRING if first == b'"' else _SCALAR)


def enter_array(window: Window, key: str) -> int:
    """Move behind the bracket of the array that is member `key`; gives where in the file it begins.

    Raises:
        DataError: the member is no array.
    """
    if not window.data.startswith(b"["):
        raise DataError(f"{window.name}: {key}: expected an array at byte {window.base}, got {window.data[:20]!r}")
    window.let_go(1)
    return window.base - 1


def decoded_elements(
    window: Window, bracket: int, decode: Callable[[bytes], list[Value]]
) -> Iterator[list[Value] | Spans]:
    """The elements of an array of objects, decoded; as spans where there is something that `decode` does not take.

    Args:
        window: just behind the array's bracket; it is left just behind the other one.
        bracket: where in the file the array begins.
        decode: from the text of a JSON array to its elements; it raises `msgspec.DecodeError`.

    Raises:
        DataError: the array never ends.
    """
    closed = False
    while not closed:
        if len(window.data) < _PIECE:
            window.grow(_PIECE)
        cut = _seam(window.data)
        try:
            values = decode(b"[%b]" % window.data[:cut]) if cut else []
        except _NOT_TAKEN:
            cut = 0
        if cut:
            yield values
            window.let_go(window.data.index(b",", cut) + 1)
            continue
        spans, closed = take_elements(window, bracket)
        yield _decoded(spans, decode)


def _decoded(spans: Spans, decode: Callable[[bytes], list[Value]]) -> list[Value] | Spans:
    if not spans.starts.size:
        return []
    try:
        return decode(b"[%b]" % spans.data[int(spans.starts[0]) : int(spans.ends[-1])])
    except _NOT_TAKEN:
        return spans


def _seam(data: bytes) -> int:
    """One past the end of the last object that another one seems to follow, or 0."""
    brace = len(data)
    for _ in range(_TRIES):
        brace = data.rfind(b"{", 0, brace)
        if brace < 0:
            return 0
        if found := _MEETING.search(data, max(0, brace - 64), brace):
            return found.start() + 1
    return 0


def _expect(window: Window, marks: bytes) -> bytes:
    window.skip_blanks()
    mark = window.data[:1]
    if not mark:
        raise _cut_short(window)
    if mark not in marks:
        wanted = " or ".join(chr(wanted) for wanted in marks)
        raise DataError(f"{window.name}: not JSON, expected {wanted} at byte {window.base}, got {window.data[:20]!r}")
    window.let_go(1)
    return mark


def _take(window: Window, pattern: re.Pattern[bytes]) -> bytes:
    while not (found := pattern.match(window.data)):
        if not window.grow():
            if window.data.strip():
                raise DataError(f"{window.name}: not JSON or cut short at byte {window.base}: {window.data[:20]!r}")
            raise _cut_short(window)
    window.let_go(found.end())
    return found.group()


def _parsed(window: Window, text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return parse_json(text)
    except Rejected as rejected:
        raise DataError(f"{window.name}: not JSON before byte {window.base}: {rejected.detail}") from None


def _cut_short(window: Window) -> DataError:
    return DataError(f"{window.name}: cut short, its JSON object never ends; fetch the file again")
