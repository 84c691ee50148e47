"""Finds the commas and the end of a JSON array in a piece of its text, by masking strings and counting brackets."""

import numpy as np
from numpy.typing import NDArray

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
_MARKS = bytes(byte in b'"{}[],' for byte in range(256))
_DEPTH_CHANGE = np.zeros(256, np.int8)
_DEPTH_CHANGE[list(b"{[")] = 1
_DEPTH_CHANGE[list(b"}]")] = -1


class Scan:
    """State of the scan of an array between one piece and the next."""

    def __init__(self) -> None:
        self.in_string = False
        self.depth = 1

    def cut(self, piece: bytes) -> NDArray[np.int64]:
        """Return the offsets in the piece of the outer array's commas and, last, of its end."""
        text = np.frombuffer(piece, np.uint8)
        is_mark = np.frombuffer(piece.translate(_MARKS), np.bool_)  # twice as fast as a lookup in numpy
        escaped = _escaped_quotes(text)
        if escaped.size:
            is_mark = is_mark.copy()
            is_mark[escaped] = False
        marks = np.flatnonzero(is_mark)
        kinds = text[marks]
        quotes = kinds == _QUOTE
        open_string = np.cumsum(quotes, dtype=np.uint8) % 2 != self.in_string
        outside = ~(quotes | open_string)
        if open_string.size:
            self.in_string = bool(open_string[-1])
        marks, kinds = marks[outside], kinds[outside]
        depth = self.depth + np.cumsum(_DEPTH_CHANGE[kinds], dtype=np.int32)
        if depth.size:
            self.depth = int(depth[-1])
        cuts = (depth == 1) & (kinds == _COMMA)
        ends = np.flatnonzero(depth == 0)
        if ends.size:
            last = int(ends[0])
            cuts[last] = True
            cuts, marks = cuts[: last + 1], marks[: last + 1]
        offsets: NDArray[np.int64] = marks[cuts]
        return offsets


def _escaped_quotes(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the offsets of quotes after an odd number of backslashes."""
    backslashes = np.flatnonzero(text == _BACKSLASH)
    if not backslashes.size:
        return backslashes
    starts = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)  # of runs of backslashes
    lengths = np.diff(starts, append=backslashes.size)
    after = backslashes[starts] + lengths
    odd = after[(lengths % 2 == 1) & (after < text.size)]
    escaped: NDArray[np.int64] = odd[text[odd] == _QUOTE]
    return escaped
