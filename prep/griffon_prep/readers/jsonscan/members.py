"""One large JSON object, as COCO's files are: its members in order, without holding or parsing the file.

Long arrays in it are decoded in pieces. A piece is cut where two objects seem to meet; the decoder itself proves the
cut, for a text in brackets is one whole JSON array only if it was cut between elements.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from griffon_prep.readers.jsonscan.records import parse_json
from griffon_prep.readers.jsonscan.spans import Elements, Spans, Window
from griffon_prep.records import Rejected
from griffon_shards.support.errors import DataError

_PIECE = 1 << 18  # what a decoder makes of it stays in the processor's cache
_TRIES = 8
_MOST_MEMBERS = 100  # a file that is one object has about five; more is an object that is keyed by something
_FIRST_LOOK = 1 << 12  # bytes of a value that is passed over: most are short
_NOT_TAKEN = (msgspec.DecodeError, RecursionError)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb'[^\s,\[\]{}"]++(?=[\s,\]}])')
_MEETING = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\Z")

Value = TypeVar("Value")


class TooManyMembers(DataError):
    """An object that is keyed by ids or the like."""


def members(window: Window) -> Iterator[str]:
    """The keys of the object at the window's start. At each, the window is at the value: the caller takes or skips it.

    Raises:
        DataError: the text is no JSON object, never ends, or has more members than any file that is read.
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
                "expected an array, JSONL, or COCO's images, annotations, categories"
            )
        window.skip_blanks()
        key = _parsed(window, _take(window, _STRING))
        _expect(window, b":")
        window.skip_blanks()
        yield str(key)
        mark = _expect(window, b",}")


def skip_value(window: Window) -> None:
    """Move on behind the value at the window's start.

    Raises:
        DataError: it is damaged in such a way that it may have swallowed what follows it.
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
    """Move behind the bracket of the array that is member `key`; gives its elements, none of them taken.

    Raises:
        DataError: the member is no array.
    """
    if not window.data.startswith(b"["):
        raise DataError(f"{window.name}: {key}: expected an array at byte {window.base}, got {window.data[:20]!r}")
    window.let_go(1)
    return Elements(window, key)


def decoded_elements(elements: Elements, decode: Callable[[bytes], list[Value]]) -> Iterator[list[Value] | Spans]:
    """The elements of an array of objects, decoded; as spans where there is something that `decode` does not take.

    Args:
        elements: of the array; all are taken.
        decode: from the text of a JSON array to its elements; it raises `msgspec.DecodeError`.

    Raises:
        DataError: the array never ends, or an element cannot be told from those behind it.
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
