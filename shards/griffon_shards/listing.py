"""Choose and sort the samples that `griffon-shards ls` lists."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from griffon_shards.draw import labelled_boxes
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.grammar import LABELLED_TASKS
from griffon_shards.support.errors import DataError
from griffon_shards.types import TASKS, BoxXYXY, Sample

_TASKS_WITH_LABELS = {TASKS.index(task) for task in (*LABELLED_TASKS, "REG")}


def matching(shards: FrozenSet, rows: Iterable[int], category: str | None, text: str | None) -> Iterator[int]:
    """Yield the rows whose samples have a box of a category and hold a text, in any variant; None asks for nothing.

    Samples are read where the index does not rule them out.

    Raises:
        DataError: a sample is damaged.
    """
    for row in rows:
        if category is not None and not _can_have_label(shards.index[row]):
            continue
        if category is not None or text is not None:
            sample = shards[int(row)]
            if category is not None and not _has_category(sample, shards, row, category):
                continue
            if text is not None and not _holds(sample, text):
                continue
        yield int(row)


def _can_have_label(facts: np.void) -> bool:
    return int(facts["task"]) in _TASKS_WITH_LABELS and int(facts["boxes"]) > 0


def _has_category(sample: Sample, shards: FrozenSet, row: int, category: str) -> bool:
    wanted = category.casefold()
    return any(label.casefold() == wanted for label, _ in boxes_of_variants(sample, shards, row))


def _holds(sample: Sample, text: str) -> bool:
    wanted = text.casefold()
    return any(wanted in turn.text.casefold() for item in sample.renderings for turn in item.turns)


def boxes_of_variants(sample: Sample, shards: FrozenSet, row: int) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (as fractions) of all variants of the sample in a row.

    Raises:
        DataError: an answer is not of the grammar.
    """
    style = shards.lock.render["boxes"]
    try:
        variants = [replace(sample, renderings=(item,)) for item in sample.renderings]
        return [labelled for variant in variants for labelled in labelled_boxes(variant, style)]
    except ValueError as error:
        raise DataError(f"{shards.where(row)}: {error}") from None


def smallest_box_px2(shards: FrozenSet, row: int) -> float:
    """The area of the smallest box of a sample in square pixels; NaN if it has none.

    Boxes are as exact as the set has them: where it has none in pixels, they are those that are written.
    """
    return smallest_box_of(shards[row], shards, row) if int(shards.index[row]["boxes"]) else float("nan")


def smallest_box_of(sample: Sample, shards: FrozenSet, row: int) -> float:
    """`smallest_box_px2` of a sample that is read already."""
    boxes = [box for item in sample.renderings for box in item.boxes_xyxy_px or ()]
    if not boxes:
        width_px, height_px = sample.width_px, sample.height_px
        boxes = [
            (x1 * width_px, y1 * height_px, x2 * width_px, y2 * height_px)
            for _, (x1, y1, x2, y2) in boxes_of_variants(sample, shards, row)
        ]
    return min(((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes), default=float("nan"))


def sorted_rows(shards: FrozenSet, rows: NDArray[np.int64], order: str, *, reverse: bool) -> NDArray[np.int64]:
    """Sort rows by a key of `INDEX_ORDERS`, without reading samples. Equal rows stay in the order of the set."""
    sort_keys = INDEX_ORDERS[order](shards, rows)
    if reverse:
        sort_keys = [-key for key in sort_keys]
    return rows[np.lexsort(sort_keys)]


def rows_by_smallest_box(
    shards: FrozenSet, rows: Iterable[int], *, reverse: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Read the samples of all rows and sort them by `smallest_box_px2`, the smallest first.

    Returns:
        The rows and their areas in square pixels, both of shape [rows]. Rows without boxes are last in either order.
    """
    chosen, areas_px2 = array("q"), array("d")
    for row in rows:
        chosen.append(row)
        areas_px2.append(smallest_box_px2(shards, row))
    areas = np.array(areas_px2, np.float64)
    order = np.argsort(-areas if reverse else areas, kind="stable")
    return np.array(chosen, np.int64)[order], areas[order]


def _key_order(shards: FrozenSet, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    tags = np.array([source.tag for source in shards.lock.sources])
    ranks = np.append(np.argsort(np.argsort(tags)), len(tags))  # the last one: of rows that are damaged
    sources = np.minimum(shards.index["source"][rows], len(tags))
    return [shards.index["record"][rows].astype(np.int64), ranks[sources]]


INDEX_ORDERS: dict[str, Callable[[FrozenSet, NDArray[np.int64]], list[NDArray[np.int64]]]] = {
    "key": _key_order,
    "boxes": lambda shards, rows: [-shards.index["boxes"][rows].astype(np.int64)],
    "length": lambda shards, rows: [-shards.index["text_chars"][rows].astype(np.int64)],
}
"""Sort keys that the index knows, the last one first in weight, as `np.lexsort` takes them."""
ORDERS = (*INDEX_ORDERS, "box-area")
