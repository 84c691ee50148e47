"""Where the elements of a JSON array or the lines of a JSONL file lie, found without holding or parsing the file.

The scan runs over a few megabytes at a time with numpy: it marks strings, follows the depth of brackets and cuts at the
commas of the array. What stands between two cuts is parsed later, alone, by whoever needs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from griffon_shards.errors import DataError

_CHUNK = 4 << 20
_MAX_ELEMENT_BYTES = 256 << 20  # what is larger is no record: memory must stay bounded whatever file is given
_BLANKS = b" \t\r\n"
_QUOTE, _BACKSLASH, _COMMA, _NEWLINE = b'"\\,\n'
_BOM = b"\xef\xbb\xbf"

_IS_MARK = np.zeros(256, bool)
_IS_MARK[list(b'"{}[],')] = True
_DEPTH_CHANGE = np.zeros(256, np.int8)
_DEPTH_CHANGE[list(b"{[")] = 1
_DEPTH_CHANGE[list(b"}]")] = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Some elements of a file, in its order.

    Attributes:
        base: offset in the file of `data[0]`.
        data: bytes of the file that hold all of these elements.
        starts: first byte of each element, relative to `data`, int64, shape [elements].
        ends: one past its last byte.
    """

    base: int
    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Window:
    """The part of a file that is being looked at: it moves forwards only.

    Attributes:
        name: of the file, for errors.
        base: offset in the file of `data[0]`.
        data: what has been read and not yet let go.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.base = 0
        self.data = b""
        self.grow()
        if self.data.startswith(_BOM):
            self.let_go(len(_BOM))

    def grow(self, least: int | None = None) -> bool:
        """Read on, as much as there is in the window already: a long element is not gone over again and again.

        Returns False at the end of the file.

        Raises:
            DataError: something in the window does not end.
        """
        if len(self.data) > max(_MAX_ELEMENT_BYTES, _CHUNK):
            raise DataError(
                f"{self.name}: has an element of over {_MAX_ELEMENT_BYTES >> 20} MiB; "
                "expected JSONL or a JSON array of records"
            )
        more = self._file.read(max(least or _CHUNK, len(self.data)))
        self.data += more
        return bool(more)

    def let_go(self, count: int) -> None:
        """Move on by `count` bytes."""
        self.data = self.data[count:]
        self.base += count

    def skip_blanks(self) -> None:
        """Move on to the next byte that is not blank; the window is empty at the end of the file."""
        while True:
            text = self.data.lstrip(_BLANKS)
            self.let_go(len(self.data) - len(text))
            if text or not self.grow():
                return

    def expect_end(self, what: str) -> None:
        """See that nothing but blanks is left.

        Raises:
            DataError: there is more.
        """
        self.skip_blanks()
        if self.data:
            raise DataError(f"{self.name}: there is text behind the end of its JSON {what}; one file holds one {what}")


def element_spans(file: BinaryIO, name: str) -> Iterator[Spans]:
    """The elements of a JSON array, or the lines of a JSONL file; which of the two is seen by the first character.

    Args:
        file: opened at its start; read once, forwards.
        name: of the file, for errors.

    Raises:
        DataError: a JSON array that never ends, or has text behind its end.
    """
    window = Window(file, name)
    start = len(window.data) - len(window.data.lstrip(_BLANKS))
    if window.data.startswith(b"[", start):
        window.let_go(start + 1)
        yield from array_spans(window)
        window.expect_end("array")
    else:
        yield from _line_spans(window)


def _line_spans(window: Window) -> Iterator[Spans]:
    while window.data:
        data = window.data
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        ended = not newlines.size and not window.grow()
        if ended:  # the last line may have no newline behind it
            newlines = np.array([len(data)])
        if newlines.size:
            starts = np.concatenate(([0], newlines[:-1] + 1))
            keep = newlines > starts
            begins_blank = np.isin(np.frombuffer(data, np.uint8)[starts[keep]], list(_BLANKS))
            for i in np.flatnonzero(keep)[begins_blank]:
                keep[i] = bool(data[starts[i] : newlines[i]].strip(_BLANKS))
            yield Spans(base=window.base, data=data, starts=starts[keep], ends=newlines[keep])
            window.let_go(min(int(newlines[-1]) + 1, len(data)))
            if not ended:
                window.grow()


def array_spans(window: Window) -> Iterator[Spans]:
    """The elements of the array whose bracket is just in front of the window, which is left just behind the other one.

    Raises:
        DataError: the array never ends.
    """
    bracket, closed = window.base - 1, False
    while not closed:
        spans, closed = take_elements(window, bracket)
        yield spans


def take_elements(window: Window, bracket: int) -> tuple[Spans, bool]:
    """The next elements of an array, and whether they are the last.

    Args:
        window: it begins at an element's first byte (or a blank before it), and is moved on behind a comma or the end.
        bracket: where in the file the array begins.

    Raises:
        DataError: the array never ends.
    """
    scan = _Scan()
    scanned = 0  # how much of the window the scan has been over
    while True:
        while window.data.endswith(b"\\") and window.grow(1):  # never end a piece between a backslash and its quote
            pass
        cuts, closed = scan.cut(window.data[scanned:])
        ends = cuts + scanned
        if ends.size:
            starts = np.concatenate(([0], ends[:-1] + 1))
            keep = np.ones(ends.size, bool)
            if closed is not None:  # `[]` and a trailing comma leave a last element of blanks
                keep[-1] = bool(window.data[starts[-1] : ends[-1]].strip(_BLANKS))
            spans = Spans(base=window.base, data=window.data, starts=starts[keep], ends=ends[keep])
            window.let_go(int(ends[-1]) + 1)
            return spans, closed is not None
        scanned = len(window.data)
        if not window.grow():
            raise DataError(
                f"{window.name}: cut short, the JSON array that begins at byte {bracket} never ends; "
                "fetch the file again"
            )


class _Scan:
    """What must be remembered of the array from one piece to the next."""

    def __init__(self) -> None:
        self.in_string = False
        self.depth = 1

    def cut(self, piece: bytes) -> tuple[NDArray[np.int64], int | None]:
        """Offsets in the piece of the outer array's commas and of its end, in order; and of the end alone, if here."""
        text = np.frombuffer(piece, np.uint8)
        marks = np.flatnonzero(_IS_MARK[text])
        kinds = text[marks]
        escaped = _escaped_quotes(text, marks[kinds == _QUOTE])
        if escaped.size:
            keep = ~np.isin(marks, escaped, assume_unique=True)
            marks, kinds = marks[keep], kinds[keep]
        quotes = kinds == _QUOTE
        open_string = (np.cumsum(quotes) + self.in_string) % 2 == 1
        outside = ~quotes & ~open_string
        if open_string.size:
            self.in_string = bool(open_string[-1])
        marks, kinds = marks[outside], kinds[outside]
        depth = self.depth + np.cumsum(_DEPTH_CHANGE[kinds], dtype=np.int64)
        if depth.size:
            self.depth = int(depth[-1])
        ends = np.flatnonzero(depth == 0)
        if ends.size:
            last = int(ends[0])
            cuts = marks[: last + 1][((depth == 1) & (kinds == _COMMA))[: last + 1] | (np.arange(last + 1) == last)]
            return cuts, int(marks[last])
        return marks[(depth == 1) & (kinds == _COMMA)], None


def _escaped_quotes(text: NDArray[np.uint8], quotes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the quotes that have an odd number of backslashes in front of them."""
    backslashes = np.flatnonzero(text == _BACKSLASH)
    if not backslashes.size:
        return backslashes
    run_starts = backslashes[np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)]
    behind = quotes[(quotes > 0) & (text[quotes - 1] == _BACKSLASH)]
    run_of = run_starts[np.searchsorted(run_starts, behind) - 1]
    odd: NDArray[np.int64] = behind[(behind - run_of) % 2 == 1]
    return odd
