"""Checked access to the fields of a record: what is missing or of the wrong kind rejects the record by name."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from reprlib import Repr
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from griffon_prep.records import Rejected, is_blank
from griffon_shards.types import BoxXYXY

NO_ID = -(1 << 63)
"""Stands for an id that is missing, or neither text nor a whole number."""

PLAIN_ID = 1 << 62
"""Whole numbers nearer to 0 than this stand for themselves as ids; every other id is hashed to a number below."""

_WHOLE = re.compile(r"(-?)0*([0-9]+)(?:\.0*)?")
_DIGITS = 19  # of `PLAIN_ID`
_EXACT = 1 << 53  # whole numbers from here on are not all floats
_MOST_BITS = 128  # of a whole number that is an id
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80
_MAX_SIDE_PX = 1 << 20
_NUMBERS = frozenset({int, float})  # not bool


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """A string that is not blank, with blanks around it removed."""
    value = fields.get(name)
    if not isinstance(value, str) or is_blank(value):
        raise Rejected("bad_record", f"{name}: expected text, got {short(value)}")
    return value.strip()


def list_field(fields: Mapping[str, Any], name: str) -> list[Any]:
    """A list, which may be empty."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise Rejected("bad_record", f"{name}: expected a list, got {short(value)}")
    return value


def side_field(fields: Mapping[str, Any], name: str) -> int:
    """A picture's width or height in pixels: a whole number above 0."""
    value = fields.get(name)
    if not is_number(value) or not 0 < value <= _MAX_SIDE_PX or value != int(value):
        raise Rejected("bad_record", f"{name}: expected a whole number of pixels above 0, got {short(value)}")
    return int(value)


def box_of(value: object, name: str) -> BoxXYXY:
    """Four numbers as a box; whether they are finite and in order is asked when the box is rendered."""
    if not isinstance(value, list) or len(value) != 4 or not _NUMBERS.issuperset(map(type, value)):
        raise Rejected("bad_record", f"{name}: expected a box of four numbers, got {short(value)}")
    try:
        x1, y1, x2, y2 = map(float, value)
    except OverflowError:
        raise Rejected("bad_record", f"{name}: a number of {short(value)} is too large for a box") from None
    return x1, y1, x2, y2


def corners_of(box_xywh: BoxXYXY) -> BoxXYXY:
    """The corners of a box that is given as its left and upper edge, width and height."""
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def id_of(value: object) -> int:
    """The number that an id is compared by, or `NO_ID`.

    A whole number is the same id however it is written: 7, 7.0, "7" or "007". Other text, and what is too large, is
    hashed to 62 bits.
    """
    if isinstance(value, str):
        text = value.strip()
        if whole := _WHOLE.fullmatch(text):
            text = whole[1] + whole[2]
            if len(whole[2]) <= _DIGITS:
                return id_of(int(text))
        return _hashed(text) if text else NO_ID
    if isinstance(value, float):
        return int(value) if abs(value) < _EXACT and value == int(value) else NO_ID  # digits of larger ones are lost
    if not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > _MOST_BITS:
        return NO_ID
    return value if -PLAIN_ID < value < PLAIN_ID else _hashed(str(value))


def ids_of(values: Sequence[Any]) -> NDArray[np.int64]:
    """As `id_of`, of many."""
    if {int}.issuperset(map(type, values)):
        with suppress(OverflowError):
            ids = np.array(values, np.int64)
            if ((ids > -PLAIN_ID) & (ids < PLAIN_ID)).all():
                return ids
    return np.array(list(map(id_of, values)), np.int64)


def checked_id(fields: Mapping[str, Any], name: str) -> int:
    """An id that must be there, as `id_of` gives it."""
    found = id_of(fields.get(name))
    if found == NO_ID:
        raise Rejected("bad_record", f"{name}: expected text or a whole number, got {short(fields.get(name))}")
    return found


def _hashed(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return NO_ID + 1 + int.from_bytes(digest, "little") % PLAIN_ID


def short(value: object) -> str:
    """A value as a message shows it; never deep, long or slow, whatever it is."""
    try:
        return _SHORT.repr(value)[:80]
    except ValueError:  # Python does not write integers of thousands of digits
        return "a huge number"


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a parsed JSON value is a number; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
