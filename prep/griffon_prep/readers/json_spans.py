"""Where the elements of a JSON array or the lines of a JSONL file lie, found without holding or parsing the file.

The scan runs over a few megabytes at a time with numpy: it marks strings, follows the depth of brackets and cuts at the
commas of the outer array. What stands between two cuts is parsed later, alone, by whoever needs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
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


def element_spans(file: BinaryIO, name: str) -> Iterator[Spans]:
    """The elements of a JSON array, or the lines of a JSONL file; which of the two is seen by the first character.

    Args:
        file: opened at its start; read once, forwards.
        name: of the file, for errors.

    Raises:
        DataError: a JSON array that never ends, or has text behind its end.
    """
    head = file.read(_CHUNK)
    start = len(_BOM) if head.startswith(_BOM) else 0
    text = head[start:].lstrip(_BLANKS)
    if text.startswith(b"["):
        yield from _array_spans(file, head, len(head) - len(text), name)
    else:
        yield from _line_spans(file, head, start, name)


def _line_spans(file: BinaryIO, head: bytes, start: int, name: str) -> Iterator[Spans]:
    data, base = head[start:], start
    while data:
        newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
        more = _read_on(file, b"" if newlines.size else data, name)
        if not more:  # the last line may have no newline behind it
            newlines = np.append(newlines, len(data))
        if newlines.size:
            starts = np.concatenate(([0], newlines[:-1] + 1))
            keep = newlines > starts
            begins_blank = np.isin(np.frombuffer(data, np.uint8)[starts[keep]], list(_BLANKS))
            for i in np.flatnonzero(keep)[begins_blank]:
                keep[i] = bool(data[starts[i] : newlines[i]].strip(_BLANKS))
            yield Spans(base=base, data=data, starts=starts[keep], ends=newlines[keep])
            used = min(int(newlines[-1]) + 1, len(data))
            data, base = data[used:], base + used
        data += more
        if not more:
            return


def _array_spans(file: BinaryIO, head: bytes, bracket: int, name: str) -> Iterator[Spans]:
    scan = _Scan()
    data, base = head[bracket + 1 :], bracket + 1
    scanned = 0  # how much of `data` the scan has been over
    while True:
        fresh = data[scanned:]
        while fresh.endswith(b"\\") and (more := file.read(1)):  # never end a piece between a backslash and its quote
            data, fresh = data + more, fresh + more
        cuts, closed = scan.cut(fresh)
        ends = cuts + scanned
        if ends.size:
            starts = np.concatenate(([0], ends[:-1] + 1))
            keep = np.ones(ends.size, bool)
            if closed is not None:  # `[]` and a trailing comma leave a last element of blanks
                keep[-1] = bool(data[starts[-1] : ends[-1]].strip(_BLANKS))
            yield Spans(base=base, data=data, starts=starts[keep], ends=ends[keep])
            data, base = data[int(ends[-1]) :], base + int(ends[-1])
        if closed is not None:
            _expect_blanks(file, data[1:], name)
            return
        if ends.size:
            data, base = data[1:], base + 1
        scanned = len(data)
        more = _read_on(file, data, name)
        if not more:
            raise DataError(
                f"{name}: cut short, the JSON array that begins at byte {bracket} never ends; fetch the file again"
            )
        data += more


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


def _read_on(file: BinaryIO, pending: bytes, name: str) -> bytes:
    """The next piece; as long as what is pending, so that a long element is not gone over again and again."""
    if len(pending) > max(_MAX_ELEMENT_BYTES, _CHUNK):
        raise DataError(
            f"{name}: has an element of over {_MAX_ELEMENT_BYTES >> 20} MiB; expected JSONL or a JSON array of records"
        )
    return file.read(max(_CHUNK, len(pending)))


def _expect_blanks(file: BinaryIO, rest: bytes, name: str) -> None:
    pieces = chain([rest], iter(partial(file.read, _CHUNK), b""))
    if any(piece.strip(_BLANKS) for piece in pieces):
        raise DataError(f"{name}: there is text behind the end of its JSON array; one file holds one array")
