"""Streams the members of one large JSON object, such as a COCO file, in order, without loading or parsing all of it.

Long arrays in it are decoded in pieces. A piece is cut where two objects seem to meet, and the decoder proves the cut:
the piece in brackets is a valid JSON array only if it was cut between elements.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from griffon_prep.readers.jsonscan.records import parse_json
from griffon_prep.readers.jsonscan.spans import Elements, Spans, Window
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError

_PIECE = 1 << 18  # bytes; the decoded values fit in the processor's cache
_TRIES = 8
_MOST_MEMBERS = 100  # a supported file has about five; an object with more is keyed by ids or the like
_FIRST_LOOK = 1 << 12  # bytes of a skipped value: most are short
_NOT_TAKEN = (msgspec.DecodeError, RecursionError)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]++(?=[\s,\]}])')
_MEETING = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\Z")

Value = TypeVar("Value")


class TooManyMembers(DataError):
    """The object has so many members that it is probably keyed by ids."""


def members(window: Window) -> Iterator[str]:
    """Yield the keys of the object at the window's start. At each key the caller must read or skip the value.

    Raises:
        DataError: the text is not a JSON object, never ends, or has more members than any supported file.
    """
    _expect(window, b"{")
    window.skip_blanks()
    if window.data.startswith(b"}"):
        window.let_go(1)
        return
    count, mark = 0, b","
    while mark == b",":
        if (count := count + 1) > _MOST_MEMBERS:
            raise TooManyMembers(
                f"{window.name}: one JSON object with over {_MOST_MEMBERS} members; "
                "expected an array, JSONL, or COCO's images, annotations and categories"
            )
        window.skip_blanks()
        key = _parsed(window, _take(window, _STRING))
        _expect(window, b":")
        window.skip_blanks()
        yield str(key)
        mark = _expect(window, b",}")


def skip_value(window: Window) -> None:
    """Skip the value at the window's start.

    Raises:
        DataError: the value is damaged, and its end cannot be determined.
    """
    first = window.data[:1]
    if first in (b"[", b"{"):
        window.let_go(1)
        what, brackets = ("array", b"[]") if first == b"[" else ("object", b"{}")
        for _ in Elements(window, f"the {what} at byte {window.base - 1}", brackets, _FIRST_LOOK):
            pass
    else:
        _take(window, _STRING if first == b'"' else _SCALAR)


def enter_array(window: Window, key: str) -> Elements:
    """Enter the array that is member `key`, and return its elements, none of them read yet.

    Raises:
        DataError: the member is not an array.
    """
    if not window.data.startswith(b"["):
        raise DataError(f"{window.name}: {key}: expected an array at byte {window.base}, got {window.data[:20]!r}")
    window.let_go(1)
    return Elements(window, key)


def decoded_elements(elements: Elements, decode: Callable[[bytes], list[Value]]) -> Iterator[list[Value] | Spans]:
    """Yield the decoded elements of an array of objects; as spans where `decode` does not accept them.

    Args:
        elements: of the array; all are consumed.
        decode: decodes the text of a JSON array to its elements; raises `msgspec.DecodeError`.

    Raises:
        DataError: the array never ends, or the end of an element cannot be determined.
    """
    window = elements.window
    while not elements.closed:
        if len(window.data) < _PIECE:
            window.grow(_PIECE)
        cut = _seam(window.data)
        try:
            values = decode(b"[%b]" % window.data[:cut]) if cut else []
        except _NOT_TAKEN:
            cut = 0
        if cut:
            yield values
            elements.seen += len(values)
            window.let_go(window.data.index(b",", cut) + 1)
        else:
            yield _decoded(elements.take(), decode)


def _decoded(spans: Spans, decode: Callable[[bytes], list[Value]]) -> list[Value] | Spans:
    if not spans.starts.size:
        return []
    try:
        return decode(b"[%b]" % spans.data[int(spans.starts[0]) : int(spans.ends[-1])])
    except _NOT_TAKEN:
        return spans


def _seam(data: bytes) -> int:
    """Return the end of the last object that seems to be followed by another one, or 0."""
    brace = len(data)
    for _ in range(_TRIES):
        brace = data.rfind(b"{", 0, brace)
        if brace < 0:
            return 0
        if meeting := _MEETING.search(data, max(0, brace - 64), brace):
            return meeting.start() + 1
    return 0


def _expect(window: Window, marks: bytes) -> bytes:
    window.skip_blanks()
    mark = window.data[:1]
    if not mark:
        raise _truncated(window)
    if mark not in marks:
        expected = " or ".join(map(chr, marks))
        raise DataError(
            f"{window.name}: not valid JSON, expected {expected} at byte {window.base}, got {window.data[:20]!r}"
        )
    window.let_go(1)
    return mark


def _take(window: Window, pattern: re.Pattern[bytes]) -> bytes:
    while not (match := pattern.match(window.data)):
        if not window.grow():
            if window.data.strip():
                raise DataError(
                    f"{window.name}: not valid JSON, or truncated, at byte {window.base}: {window.data[:20]!r}"
                )
            raise _truncated(window)
    window.let_go(match.end())
    return match.group()


def _parsed(window: Window, text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return parse_json(text)
    except Rejected as rejected:
        raise DataError(f"{window.name}: not valid JSON before byte {window.base}: {rejected.detail}") from None


def _truncated(window: Window) -> DataError:
    return DataError(f"{window.name}: truncated, its JSON object never ends; download the file again")
