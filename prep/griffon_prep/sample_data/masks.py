"""Exact pixel masks of the shapes.

They are computed with integers and without a drawing library, so a shape's pixels and its box are the same on every
machine and with every version of Pillow. Only the encoded images depend on the library that encodes them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

# Corners in thousandths of the shape's width and height; a pixel belongs to the shape if its centre lies inside.
_CORNERS: dict[str, tuple[tuple[int, int], ...]] = {
    "triangle": ((500, 0), (1000, 1000), (0, 1000)),
    "diamond": ((500, 0), (1000, 500), (500, 1000), (0, 500)),
    "hexagon": ((250, 0), (750, 0), (1000, 500), (750, 1000), (250, 1000), (0, 500)),
    "cross": (
        (330, 0), (670, 0), (670, 330), (1000, 330), (1000, 670), (670, 670),
        (670, 1000), (330, 1000), (330, 670), (0, 670), (0, 330), (330, 330),
    ),
    "star": (
        (500, 0), (618, 382), (1000, 382), (691, 618), (809, 1000),
        (500, 764), (191, 1000), (309, 618), (0, 382), (382, 382),
    ),
}  # fmt: skip
_FULL = ("square", "bar")
_ROUND = ("circle", "oval")
_RING_HOLE = (9, 16)  # diameter of the hole over that of the ring

KINDS = (*_FULL, *_ROUND, "ring", *_CORNERS)


def mask(kind: str, width_px: int, height_px: int) -> Mask:
    """Return the pixels of one shape.

    Args:
        kind: one of KINDS.
        width_px: width of the canvas that the shape fills.
        height_px: height of the canvas.

    Returns:
        Booleans of shape (height_px, width_px). The tip of a pointed shape may leave the outermost row or column
        empty: `bounds_xyxy_px` returns the area that is actually covered.

    Raises:
        KeyError: `kind` is none of KINDS.
    """
    if kind in _FULL:
        return np.ones((height_px, width_px), dtype=np.bool_)
    if kind in _ROUND:
        return _disc(width_px, height_px, width_px, height_px)
    if kind == "ring":
        part, whole = _RING_HOLE
        hole = _disc(width_px, height_px, width_px * part // whole, height_px * part // whole)
        return _disc(width_px, height_px, width_px, height_px) & ~hole
    return _polygon(_CORNERS[kind], width_px, height_px)


def bounds_xyxy_px(shape_mask: Mask) -> tuple[int, int, int, int]:
    """Return the smallest box around the pixels of a mask: x1, y1, and the exclusive edges x2, y2.

    Raises:
        IndexError: the mask is empty.
    """
    columns = np.flatnonzero(shape_mask.any(axis=0))
    rows = np.flatnonzero(shape_mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def interior(shape_mask: Mask, margin_px: int) -> Mask:
    """Return the pixels of a mask that are at least `margin_px` rows and columns away from its edge."""
    height_px, width_px = shape_mask.shape
    padded = np.pad(shape_mask, margin_px)
    inner = shape_mask.copy()
    for dy_px, dx_px in ((-margin_px, 0), (margin_px, 0), (0, -margin_px), (0, margin_px)):
        top_px, left_px = margin_px + dy_px, margin_px + dx_px
        inner &= padded[top_px : top_px + height_px, left_px : left_px + width_px]
    return inner


def _disc(width_px: int, height_px: int, disc_width_px: int, disc_height_px: int) -> Mask:
    """Return an ellipse of the given diameters in the middle of a canvas."""
    x = 2 * np.arange(width_px, dtype=np.int64) + 1 - width_px
    y = 2 * np.arange(height_px, dtype=np.int64) + 1 - height_px
    across = (x * disc_height_px) ** 2
    down = (y * disc_width_px) ** 2
    inside: Mask = across[None, :] + down[:, None] <= (disc_width_px * disc_height_px) ** 2
    return inside


def _polygon(corners: tuple[tuple[int, int], ...], width_px: int, height_px: int) -> Mask:
    """Return a polygon by the even-odd rule at pixel centres, computed in thousandths of a pixel."""
    centre_x = 500 * (2 * np.arange(width_px, dtype=np.int64) + 1)
    centre_y = 500 * (2 * np.arange(height_px, dtype=np.int64) + 1)
    inside = np.zeros((height_px, width_px), dtype=np.bool_)
    for (u1, v1), (u2, v2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        x1, y1, x2, y2 = u1 * width_px, v1 * height_px, u2 * width_px, v2 * height_px
        if y1 == y2:
            continue
        crosses = (y1 > centre_y) != (y2 > centre_y)
        edge_x = x1 + (centre_y - y1) * (x2 - x1) // (y2 - y1)
        inside ^= crosses[:, None] & (centre_x[None, :] < edge_x[:, None])
    return inside
