"""The values in a published file as the oracles read them: an id, a number, a text, a box, or one of `AMISS`."""

import re
from typing import Any

from .mutations import box_text

AMISS = (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError)

Answer = tuple[str, str, str]
Told = tuple[set[Answer], int | None]


def number(value: Any) -> float:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def same(one: object, other: object) -> bool:
    """Whether two ids are: there, and the same text or integer, the number written as text or not."""
    return identity(one) is not None and identity(one) == identity(other)


def identity(value: object) -> int | str | None:
    if isinstance(value, str):
        text = value.strip()
        return int(float(text)) if re.fullmatch(r"-?[0-9]{1,15}(\.0*)?", text) else text or None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)


def words(value: Any) -> str:  # noqa: ANN401 - JSON
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value.strip()


def sides(fields: dict[str, Any]) -> tuple[int, int]:
    width, height = (number(fields[name]) for name in ("width", "height"))
    if not (0 < width == int(width) and 0 < height == int(height)):
        raise ValueError
    return int(width), int(height)


def xywh_text(box: Any, fields: dict[str, Any]) -> str:  # noqa: ANN401 - JSON
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError
    x, y, width, height = (float(number(coordinate)) for coordinate in box)
    return box_text((x, y, x + width, y + height), *sides(fields))


def corners_text(box: Any, size: tuple[int, int]) -> str:  # noqa: ANN401 - JSON
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError
    return box_text([float(number(coordinate)) for coordinate in box], *size)
