"""Checks some boxes of a source against their images, before anything is written.

Boxes in another unit, or whose numbers are in another order, cannot be told from right ones record by record, or only
when most of a set has been built.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from griffon_prep.readers.base import Reader
from griffon_prep.readers.box_form import states_order
from griffon_prep.records import Record, Rejected
from griffon_prep.sources.sized_records import image_file, sized
from griffon_shards.support.errors import SettingsError
from griffon_shards.types import BoxXYXY

_RECORDS, _IMAGES, _STEP = 1000, 50, 20  # records that are read, and images whose size no record states
_FEWEST = 10  # boxes
_MOST, _NEARLY_ALL = 0.5, 0.99  # shares of the boxes
_SLACK_PX, _SLACK = 2, 0.01
_FRACTION_SLACK = 1e-3
_LEAST_SIDE_PX = 16


def check_boxes(
    reader: Reader, records: int, options: Mapping[str, str], image_root: str, name: str, *, takes_boxes: bool
) -> None:
    """Check boxes of records from everywhere in a source.

    Args:
        reader: reader of the source.
        records: number of its records.
        options: the options of the manifest line. If they state the order of the numbers, only the unit is checked.
        image_root: absolute folder of the images.
        name: the annotation's name, for messages.
        takes_boxes: whether the format takes the option `boxes=`.

    Raises:
        SettingsError: all boxes lie within [0, 1], most extend beyond their images, or most are inverted and would fit
            as x, y, width, height.
        OSError: the storage fails.
    """
    stated = states_order(options)
    boxes, sides_px = _boxes_of(reader, records, image_root, upright=options.get("orientation") == "shown")
    if not len(boxes):
        return
    looked_at = f"{name}: of {len(boxes):,} boxes looked at"
    unit = f"{options['boxes']}+" if options.get("boxes") and not stated else ""

    def add(value: str) -> str:
        return f"add boxes={value} to the manifest line" if takes_boxes else "correct the annotation"

    first = f"the first is [{', '.join(f'{corner:g}' for corner in boxes[0].tolist())}]"
    size = "in an image of {:.0f}x{:.0f} pixels".format(*sides_px[0])
    if not options.get("boxes") and _all_fractions(boxes, sides_px):
        raise SettingsError(
            f"{looked_at}, all lie within [0, 1] ({first} {size}), expected pixels; if they are fractions of sides, "
            f"{add('fraction')}"
        )
    if len(boxes) < _FEWEST or (stated and "+" not in options["boxes"]):
        return
    beyond = int((boxes[:, 2:] > sides_px * (1 + _SLACK) + _SLACK_PX).any(axis=1).sum())
    if beyond > _MOST * len(boxes):
        remedy = (
            f"they fit as corners x1, y1, x2, y2; {add(f'{unit}xyxy')}"
            if _fit(boxes[:, 2:] - boxes[:, :2], boxes, sides_px)
            else f"correct their unit or the image root; if they are right, {add('xyxy or boxes=xywh')}"
        )
        raise SettingsError(f"{looked_at}, {beyond:,} extend beyond their images ({first} {size}); {remedy}")
    inverted = int((boxes[:, 2:] < boxes[:, :2]).any(axis=1).sum())
    if inverted > _MOST * len(boxes) and (boxes[:, :2] + boxes[:, 2:] <= sides_px + _SLACK_PX).all(axis=1).mean() > (
        _NEARLY_ALL
    ):
        raise SettingsError(
            f"{looked_at}, {inverted:,} end before they begin ({first} {size}); they fit as x, y, width, height; "
            f"{add(f'{unit}xywh')}"
        )


def _boxes_of(
    reader: Reader, records: int, image_root: str, *, upright: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return finite boxes in pixels, shape [boxes, 4], and the width and height of the image of each."""
    boxes: list[BoxXYXY] = []
    sides_px: list[tuple[int, int]] = []
    unsized = 0
    numbers = np.linspace(0, records - 1, min(records, _RECORDS)).astype(int)
    # In steps, so that the first few are from everywhere, too.
    for record_no in np.concatenate([numbers[start::_STEP] for start in range(_STEP)]).tolist():
        try:
            record = reader.read(record_no)
            if record.needs_size:
                unsized += 1
                if unsized > _IMAGES:
                    break
            record = sized(record, partial(image_file, image_root), upright=upright)
        except Rejected:
            continue
        of_record = _all_boxes(record)
        boxes += of_record
        sides_px += [(record.width_px, record.height_px)] * len(of_record)
    array = np.array(boxes, np.float64).reshape(-1, 4)
    finite = np.isfinite(array).all(axis=1)
    return array[finite], np.array(sides_px, np.float64).reshape(-1, 2)[finite]


def _all_boxes(record: Record) -> Sequence[BoxXYXY]:
    return [*(region.box_xyxy_px for region in record.regions), *record.boxes_in_text]


def _all_fractions(boxes: NDArray[np.float64], sides_px: NDArray[np.float64]) -> bool:
    """Whether all numbers of boxes lie within [0, 1], which in small images may be right.

    The second pair is compared as width and height: fractions that are corners may have been read as these.
    """
    first, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    inside = [((pair >= -_FRACTION_SLACK) & (pair <= 1 + _FRACTION_SLACK)).all() for pair in (first, extent)]
    return bool(all(inside) and (boxes > 0).any() and (sides_px >= _LEAST_SIDE_PX).all())


def _fit(second: NDArray[np.float64], boxes: NDArray[np.float64], sides_px: NDArray[np.float64]) -> bool:
    """Whether nearly all boxes fit into their images if the second pair of their numbers is a corner."""
    fitting = ((second > boxes[:, :2]) & (second <= sides_px + _SLACK_PX)).all(axis=1)
    return bool(fitting.mean() >= _NEARLY_ALL)
