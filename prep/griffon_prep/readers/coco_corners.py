"""Detects COCO files whose boxes are corners, as some tools write them, instead of x, y, width and height.

Such boxes could be read as x, y, width and height, but they would be wrong: clipped at the edges of their images.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOK_AT = 1 << 18
"""Number of boxes that are examined."""

_FEWEST = 10  # boxes
_MOST_BEYOND, _FEWEST_CORNERS = 0.1, 0.99  # shares of the boxes; COCO's own have about 0 and 0.1
_SLACK_PX = 2
_SIDES, _MOST_PX = ("width", "height"), 1 << 20


def sides_of(entries: Sequence[Any]) -> NDArray[np.float32]:
    """Width and height in pixels of entries of `images`, shape [images, 2]; NaN where missing."""
    columns = [[value.get(name) if isinstance(value, dict) else None for value in entries] for name in _SIDES]
    return np.stack([_numbers(column) for column in columns], axis=1)


def _numbers(values: Sequence[Any]) -> NDArray[np.float32]:
    if {int}.issuperset(map(type, values)):  # four times as fast
        with suppress(OverflowError):
            return np.array(values, np.float32)
    return np.array([value if type(value) is int and value < _MOST_PX else np.nan for value in values], np.float32)


def corner_notes(xywh: NDArray[np.float64], sides_px: NDArray[np.float32]) -> tuple[str, ...]:
    """Return a note for the user if the boxes fit into their images only when read as corners.

    Args:
        xywh: boxes as written in the file, shape [boxes, 4].
        sides_px: width and height of the image of each box, shape [boxes, 2]; NaN where unknown.
    """
    known = np.isfinite(xywh).all(axis=1) & np.isfinite(sides_px).all(axis=1)
    first, second, limit = xywh[known, :2], xywh[known, 2:], sides_px[known] + _SLACK_PX
    count = len(limit)
    with np.errstate(over="ignore"):
        beyond = int((first + second > limit).any(axis=1).sum())
    corners = int(((second > first) & (second <= limit)).all(axis=1).sum())
    if count < _FEWEST or beyond < _MOST_BEYOND * count or corners < _FEWEST_CORNERS * count:
        return ()
    return (
        f"{beyond:,} of {count:,} boxes extend beyond their images: boxes are read as COCO's x, y, width, height, but "
        "these look like corners x1, y1, x2, y2; if they are, add boxes=xyxy to the manifest line",
    )
