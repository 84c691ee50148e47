"""Finds the elements of a JSON array or the lines of a JSONL file without loading the file.

The scan reads a few megabytes at a time and cuts at the commas of the array. A cut is accepted only if the text between
two cuts is one JSON value, or damage that is certainly limited to one element.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from griffon_prep.readers.jsonscan.damage import first_fault, is_json, stands_alone
from griffon_prep.readers.jsonscan.scan import Scan
from griffon_shards.support.errors import DataError

_CHUNK = 4 << 20
_MAX_ELEMENT_BYTES = 256 << 20  # nothing larger is a record: memory must stay bounded for any file
_REMEMBERED = 100  # valid elements of an array, to which a damaged one is compared
_REMEMBERED_BYTES = 1 << 16  # at most, of each
_BLANKS = b" \t\r\n"
_NEWLINE = ord("\n")
_BOM = b"\xef\xbb\xbf"
_IS_BLANK = np.zeros(256, bool)
_IS_BLANK[list(_BLANKS)] = True
_NONE = np.empty(0, np.int64)
_VALUE = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Consecutive elements of a file.

    Attributes:
        base: offset of `data[0]` in the file.
        line: line number of `data[0]` in the file, from 1.
        data: bytes of the file that contain these elements.
        starts: first byte of each element, relative to `data`, int64, shape [elements].
        ends: one past the last byte of each element.
    """

    base: int
    line: int
    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def texts(self) -> Iterator[bytes]:
        """Yield the text of each element."""
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield self.data[start:end]

    def place(self, offset: int) -> str:
        """Return line and byte of `data[offset]` in the file, for messages."""
        return f"line {self.line + self.data.count(_NEWLINE, 0, offset)}, byte {self.base + offset}"


class Window:
    """The part of a file that is held in memory; it only moves forwards.

    Attributes:
        name: the file's name, for error messages.
        base: offset of `data[0]` in the file.
        line: line number of `data[0]` in the file, from 1.
        data: bytes that were read and not yet released.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self.name = name
        self.base = 0
        self.line = 1
        self.data = b""
        self.grow()
        if self.data.startswith(_BOM):
            self.let_go(len(_BOM))

    def grow(self, least: int | None = None) -> bool:
        """Read more, as much as the window holds already, so that the time for a long element stays linear.

        Returns False at the end of the file.

        Raises:
            DataError: the window is larger than any record.
        """
        if self.is_too_long:
            raise self.too_long()
        more = self._file.read(max(least or _CHUNK, len(self.data)))
        self.data += more
        return bool(more)

    @property
    def is_too_long(self) -> bool:
        """Whether the window is larger than any record."""
        return len(self.data) > max(_MAX_ELEMENT_BYTES, _CHUNK)

    def too_long(self) -> DataError:
        """Return the error for an element that is larger than any record."""
        return DataError(
            f"{self.name}: has an element larger than {_MAX_ELEMENT_BYTES >> 20} MiB at {self.place()}; "
            "expected JSONL or a JSON array of records"
        )

    def let_go(self, count: int, lines: int | None = None) -> None:
        """Release the first `count` bytes; `lines` is the number of newlines in them, if known."""
        self.line += self.data.count(_NEWLINE, 0, count) if lines is None else lines
        self.data = self.data[count:]
        self.base += count

    def skip_blanks(self) -> None:
        """Skip whitespace; at the end of the file the window is empty."""
        while True:
            text = self.data.lstrip(_BLANKS)
            self.let_go(len(self.data) - len(text))
            if text or not self.grow():
                return

    def expect_end(self, what: str) -> None:
        """Check that only whitespace is left.

        Raises:
            DataError: there is more text.
        """
        self.skip_blanks()
        if self.data:
            raise DataError(
                f"{self.name}: there is text after the end of its JSON {what}, {self.data[:20]!r} at {self.place()}; "
                f"expected one {what} per file"
            )

    def place(self, offset: int = 0) -> str:
        """Return line and byte of `data[offset]` in the file, for messages."""
        return self.spans(_NONE, _NONE).place(offset)

    def spans(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Spans:
        """Return parts of the window as spans."""
        return Spans(base=self.base, line=self.line, data=self.data, starts=starts, ends=ends)


def element_spans(file: BinaryIO, name: str) -> Iterator[Spans]:
    """Yield the elements of a JSON array, or the lines of a JSONL file; the first character decides which it is.

    Args:
        file: opened at its start; read once, forwards.
        name: the file's name, for error messages.

    Raises:
        DataError: a JSON array never ends, has text after its end, or is damaged so that its elements cannot be told
            apart.
    """
    window = Window(file, name)
    start = len(window.data) - len(window.data.lstrip(_BLANKS))
    if window.data.startswith(b"[", start):
        window.let_go(start + 1)
        yield from Elements(window)
        window.expect_end("array")
    else:
        yield from _line_spans(window)


def _line_spans(window: Window) -> Iterator[Spans]:
    while window.data:
        data = window.data
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        ended = not newlines.size and not window.grow()
        if ended:  # the last line may have no newline
            newlines = np.array([len(data)])
        if newlines.size:
            starts = np.concatenate(([0], newlines[:-1] + 1))
            yield window.spans(*_without_blank(data, starts, newlines))
            window.let_go(min(int(newlines[-1]) + 1, len(data)), newlines.size)
            if not ended:
                window.grow()


def _without_blank(
    data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the spans that are not empty or whitespace."""
    keep = ends > starts
    text = np.frombuffer(data, np.uint8)
    suspects = np.flatnonzero(keep)[_IS_BLANK[text[starts[keep]]]]
    for i in suspects[_IS_BLANK[text[ends[suspects] - 1]]]:
        keep[i] = bool(data[starts[i] : ends[i]].strip(_BLANKS))
    return starts[keep], ends[keep]


class Elements:
    """The elements of an array, or the members of an object, whose opening bracket is directly before the window.

    An element with invalid JSON is included if it is certainly a single element. Whitespace between two commas is not
    an element.

    Attributes:
        window: always directly after the bracket, after a comma of the array, or after its end.
        seen: number of elements taken.
        closed: whether all elements were taken.
    """

    def __init__(
        self, window: Window, what: str = "the array", brackets: bytes = b"[]", piece: int | None = None
    ) -> None:
        self.window = window
        self.seen = 0
        self.closed = False
        self._what = what
        self._bracket = window.base - 1
        self._brackets = brackets
        self._piece = piece or _CHUNK
        self._valid: list[bytes] = []

    def __iter__(self) -> Iterator[Spans]:
        while not self.closed:
            yield self.take()

    def take(self) -> Spans:
        """Return the next elements.

        Raises:
            DataError: the array never ends, or the end of an element cannot be determined.
        """
        window = self.window
        cuts = self._cuts()
        starts = np.concatenate(([0], cuts[:-1] + 1))
        spans = window.spans(*_without_blank(window.data, starts, cuts))
        self._check_each_is_one(spans)
        self.seen += spans.starts.size
        last = int(cuts[-1])
        mark, closing = window.data[last : last + 1], self._brackets[1:]
        self.closed = mark != b","
        if self.closed and mark != closing:
            element_no = self.seen - bool(spans.starts.size)
            raise self._damage(last, f"Expecting {closing.decode()!r}, got {mark.decode()!r}", element_no)
        window.let_go(last + 1)
        return spans

    def _cuts(self) -> NDArray[np.int64]:
        """Return the offsets in the window of the array's next commas; the last may be its end."""
        window = self.window
        scan = Scan()
        scanned = 0  # bytes of the window that were scanned
        while True:
            end = min(scanned + self._piece, len(window.data))
            while window.data[end - 1 : end] == b"\\" and (end < len(window.data) or window.grow(1)):
                end += 1  # a piece never ends between a backslash and its quote
            cuts = scan.cut(window.data[scanned:end])
            self._piece = min(2 * self._piece, _CHUNK)
            if cuts.size:
                return cuts + scanned
            scanned = end
            if end == len(window.data) and (window.is_too_long or not window.grow()):
                raise self._never_ends()

    def _never_ends(self) -> DataError:
        window = self.window
        fault = first_fault(self._brackets[:1] + window.data)
        if fault and not fault.ends_early:
            return self._damage(fault.offset - 1, fault.what, self.seen)
        if window.is_too_long:
            return window.too_long()
        return DataError(
            f"{window.name}: truncated, the JSON array that begins at byte {self._bracket} never ends; "
            "download the file again"
        )

    def _check_each_is_one(self, spans: Spans) -> None:
        """Raise DataError if an element may be several elements, or a part of one."""
        if not spans.starts.size:
            return
        first, last = int(spans.starts[0]), int(spans.ends[-1])
        all_valid = _is_value(self._in_brackets(memoryview(spans.data)[first:last]))
        if all_valid and len(self._valid) == _REMEMBERED:
            return
        bounds = zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)
        for element_no, (start, end) in enumerate(bounds, self.seen):
            text = spans.data[start:end]
            alone = self._in_brackets(text) if self._brackets == b"{}" else text
            if all_valid or is_json(alone):
                if len(self._valid) < _REMEMBERED and len(text) <= _REMEMBERED_BYTES:
                    self._valid.append(alone)
            elif not stands_alone(alone, self._valid):
                fault = first_fault(self._brackets[:1] + text)
                assert fault is not None, "an array that is not closed is not valid JSON"
                raise self._damage(start + fault.offset - 1, fault.what, element_no)

    def _in_brackets(self, text: bytes | memoryview) -> bytes:
        return (b"[%b]" if self._brackets == b"[]" else b"{%b}") % text

    def _damage(self, offset: int, what: str, element_no: int) -> DataError:
        window = self.window
        return DataError(
            f"{window.name}: not valid JSON at {window.place(offset)}, in element {element_no} (from 0) of "
            f"{self._what}: {what}; the end of that element cannot be determined; "
            "fix the file there, or download it again"
        )


def _is_value(text: bytes) -> bool:
    try:
        _VALUE.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
