"""Checked access to the fields of a record: a field that is missing or of the wrong type rejects the record."""

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
"""Marks an id that is missing, or is neither text nor a whole number."""

PLAIN_ID = 1 << 62
"""Integers with an absolute value below this are ids as they are; every other id is hashed to a number below
-PLAIN_ID."""

_WHOLE = re.compile(r"(-?)0*([0-9]+)(?:\.0*)?")
_DIGITS = 19  # of `PLAIN_ID`
_EXACT = 1 << 53  # floats represent all integers up to here
_MOST_BITS = 128  # of an integer id
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80
_MAX_SIDE_PX = 1 << 20
_NUMBERS = frozenset({int, float})  # not bool


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """Return a string that is not blank, with surrounding whitespace removed."""
    value = fields.get(name)
    if not isinstance(value, str) or is_blank(value):
        raise Rejected("bad_record", f"{name}: expected text, got {short(value)}")
    return value.strip()


def list_field(fields: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list, which may be empty."""
    value = fields.get(name)
    if not isinstance(value, list):
        raise Rejected("bad_record", f"{name}: expected a list, got {short(value)}")
    return value


def side_field(fields: Mapping[str, Any], name: str) -> int:
    """Return an image's width or height in pixels: a whole number above 0."""
    value = fields.get(name)
    if not is_number(value) or not 0 < value <= _MAX_SIDE_PX or value != int(value):
        raise Rejected("bad_record", f"{name}: expected a whole number of pixels above 0, got {short(value)}")
    return int(value)


def box_of(value: object, name: str) -> BoxXYXY:
    """Return four numbers as a box; whether they are finite and ordered is checked when the box is rendered."""
    if not isinstance(value, list) or len(value) != 4 or not _NUMBERS.issuperset(map(type, value)):
        raise Rejected("bad_record", f"{name}: expected a box of four numbers, got {short(value)}")
    try:
        x1, y1, x2, y2 = map(float, value)
    except OverflowError:
        raise Rejected("bad_record", f"{name}: a number in {short(value)} is too large") from None
    return x1, y1, x2, y2


def corners_of(box_xywh: BoxXYXY) -> BoxXYXY:
    """Convert a box from x, y, width, height to corners."""
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def id_of(value: object) -> int:
    """Return the integer by which an id is compared, or `NO_ID`.

    A whole number is the same id however it is written: 7, 7.0, "7" or "007". Other text and larger numbers are hashed
    to 62 bits.
    """
    if isinstance(value, str):
        text = value.strip()
        if whole := _WHOLE.fullmatch(text):
            text = whole[1] + whole[2]
            if len(whole[2]) <= _DIGITS:
                return id_of(int(text))
        return _hashed(text) if text else NO_ID
    if isinstance(value, float):
        return int(value) if abs(value) < _EXACT and value == int(value) else NO_ID  # larger floats have lost digits
    if not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > _MOST_BITS:
        return NO_ID
    return value if -PLAIN_ID < value < PLAIN_ID else _hashed(str(value))


def ids_of(values: Sequence[Any]) -> NDArray[np.int64]:
    """Apply `id_of` to many values."""
    if {int}.issuperset(map(type, values)):
        with suppress(OverflowError):
            ids = np.array(values, np.int64)
            if ((ids > -PLAIN_ID) & (ids < PLAIN_ID)).all():
                return ids
    return np.array(list(map(id_of, values)), np.int64)


def checked_id(fields: Mapping[str, Any], name: str) -> int:
    """Return a required id, as returned by `id_of`."""
    checked = id_of(fields.get(name))
    if checked == NO_ID:
        raise Rejected("bad_record", f"{name}: expected text or a whole number, got {short(fields.get(name))}")
    return checked


def _hashed(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return NO_ID + 1 + int.from_bytes(digest, "little") % PLAIN_ID


def short(value: object) -> str:
    """Return a value abbreviated for a message; fast for any value, however large or nested."""
    try:
        return _SHORT.repr(value)[:80]
    except ValueError:  # Python does not print integers with thousands of digits
        return "a huge number"


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a parsed JSON value is a number; `true` is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
