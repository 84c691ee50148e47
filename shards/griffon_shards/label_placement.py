"""Where the labels of boxes go: beside their boxes, clear of each other, and over as little of other boxes as possible.

Labels are placed one after the other, each at the best of some 150 positions around its box. There is no search for
the best arrangement of all: the result is good enough, the same every time, and quick for hundreds of boxes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from griffon_shards.types import BoxXYXY

_ROWS = 12  # label heights above and below a box that are tried
_ON_LABEL = 10.0  # cost of covering a label's worth of other labels, where covering a complete box costs 1
_TOUCHING_LABEL = 2.0  # cost of covering any part of a label
_BESIDE = 0.05  # cost of a place to the left or right of a box, where it is less clear which box is meant
_ROW_AWAY = 0.1  # cost of each label height between a label and its box

_Floats = NDArray[np.float64]


def place_labels(
    sizes_px: Sequence[tuple[int, int]], boxes_xyxy_px: Sequence[BoxXYXY], image_size_px: tuple[int, int]
) -> list[tuple[int, int]]:
    """The top left corner of each label. Labels lie inside the image if they fit.

    Args:
        sizes_px: width and height of each label.
        boxes_xyxy_px: their boxes.
        image_size_px: width and height of the image.
    """
    boxes = np.array(boxes_xyxy_px, np.float64).reshape(-1, 4)
    box_areas_px2 = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    labels = np.zeros((len(boxes), 4))
    for place, ((width_px, height_px), box) in enumerate(zip(sizes_px, boxes, strict=True)):
        x1, y1, x2, y2 = box.round()
        steps = height_px * np.arange(_ROWS)
        # The preferred positions come first: above, below, inside at the top, inside at the bottom.
        best_ys = np.array([y1 - height_px, y2 + 1, y1, y2 + 1 - height_px])
        ys = np.concatenate([best_ys, y1 - height_px - steps, y1 + steps, y2 + steps])
        xs = np.array([x1, x2 + 1 - width_px, x1 - width_px, x2 + 1])
        xs = np.clip(xs, 0, max(image_size_px[0] - width_px, 0))
        ys = np.clip(ys, 0, max(image_size_px[1] - height_px, 0))
        on_labels_px2 = _common(ys, height_px, labels[:place, 1::2]) @ _common(xs, width_px, labels[:place, ::2]).T
        on_boxes = (_common(ys, height_px, boxes[:, 1::2]) / box_areas_px2) @ _common(xs, width_px, boxes[:, ::2]).T
        gaps_px = _gaps(ys, height_px, y1, y2)[:, None] + _gaps(xs, width_px, x1, x2)
        costs = (
            _ON_LABEL * on_labels_px2 / (width_px * height_px)
            + _TOUCHING_LABEL * (on_labels_px2 > 0)
            + on_boxes
            + _BESIDE * np.array([0, 0, 1, 1])
            + _ROW_AWAY * gaps_px / height_px
        )
        row, column = np.unravel_index(np.argmin(costs.round(9)), costs.shape)  # the first of equals
        labels[place] = xs[column], ys[row], xs[column] + width_px, ys[row] + height_px
    return [(int(x), int(y)) for x, y in labels[:, :2]]


def _common(starts: _Floats, length: int, spans: _Floats) -> _Floats:
    """Along one axis, what labels and spans have in common.

    Args:
        starts: where a label may start; shape [positions].
        length: its length.
        spans: starts and stops of the others; shape [spans, 2].

    Returns:
        Lengths; shape [positions, spans].
    """
    common = np.minimum(starts[:, None] + length, spans[:, 1]) - np.maximum(starts[:, None], spans[:, 0])
    lengths: _Floats = np.maximum(common, 0.0)
    return lengths


def _gaps(starts: _Floats, length: int, start: float, stop: float) -> _Floats:
    """Along one axis, the distances between labels and a box, 0 where they touch; shape [positions]."""
    gaps: _Floats = np.maximum(np.maximum(start - (starts + length), starts - stop - 1), 0.0)
    return gaps
