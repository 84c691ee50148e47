"""Checked access to the fields of a record: what is missing or of the wrong kind rejects the record by name."""

from collections.abc import Mapping
from reprlib import Repr
from typing import Any, TypeGuard

from griffon_prep.records import Rejected
from griffon_shards.types import BoxXYXY

NO_ID = -(1 << 63)
"""Stands for an id that is missing, of the wrong kind, or beyond 64 bits."""

_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80
_MAX_SIDE_PX = 1 << 20
_NUMBERS = frozenset({int, float})  # not bool


def text_field(fields: Mapping[str, Any], name: str) -> str:
    """A string that is not blank, with blanks around it removed."""
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
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
    """A whole number that fits into 64 bits, or `NO_ID`."""
    if not is_number(value) or not abs(value) < 1 << 63 or value != int(value):
        return NO_ID
    return int(value)


def short(value: object) -> str:
    """A value as a message shows it; never deep, long or slow, whatever it is."""
    try:
        return _SHORT.repr(value)[:80]
    except ValueError:  # Python does not write integers of thousands of digits
        return "a huge number"


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a parsed JSON value is a number; `true` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
