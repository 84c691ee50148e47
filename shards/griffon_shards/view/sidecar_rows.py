"""What the sidecar holds about samples, read from the shards a block of rows at a time."""

from array import array
from dataclasses import dataclass

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.listing import boxes_of_variants, smallest_box_of
from griffon_shards.storage.errors import StorageError
from griffon_shards.support.errors import DataError
from griffon_shards.types import Sample
from griffon_shards.view.text_index import indexed

MAX_LABEL_CHARS = 2000
"""Longer labels, which are sentences, are found by their text alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Facts of the rows from `start` on.

    Attributes:
        start: the first row.
        texts: questions and answers of all variants, as `text_index.indexed` leaves them; empty for a damaged sample.
        width_px: widths of the images, type `I`; 0 without an image.
        height_px: heights.
        area_px2: areas of the smallest boxes, type `d`; NaN without boxes.
        labels: rows that have a box of a label, by label.
        damaged: rows that could not be read.
    """

    start: int
    texts: list[str]
    width_px: "array[int]"
    height_px: "array[int]"
    area_px2: "array[float]"
    labels: dict[str, list[int]]
    damaged: list[int]


def read_rows(job: tuple[FrozenSet, int, int]) -> RowBlock:
    """Read the rows [start, stop) of a set. Damaged samples are listed; the page shows their errors.

    Raises:
        StorageError: the object store of the set cannot be used.
    """
    frozen, start, stop = job[0].in_order(), *job[1:]
    texts: list[str] = []
    widths_px, heights_px, areas_px2 = array("I"), array("I"), array("d")
    rows_by_label: dict[str, list[int]] = {}
    damaged: list[int] = []
    for row in range(start, stop):
        width_px, height_px, area_px2, text, labels = 0, 0, float("nan"), "", dict[str, None]()
        try:
            sample = frozen[row]
            width_px, height_px, text = sample.width_px, sample.height_px, _text(sample)
            if int(frozen.index[row]["boxes"]):
                labels = dict.fromkeys(label for label, _ in boxes_of_variants(sample, frozen, row))
                area_px2 = smallest_box_of(sample, frozen, row)
        except StorageError:  # says nothing about the sample
            raise
        except (DataError, OSError):
            damaged.append(row)
        texts.append(text)
        widths_px.append(width_px)
        heights_px.append(height_px)
        areas_px2.append(area_px2)
        for label in labels:
            if 0 < len(label) <= MAX_LABEL_CHARS:
                rows_by_label.setdefault(label, []).append(row)
    return RowBlock(
        start=start,
        texts=texts,
        width_px=widths_px,
        height_px=heights_px,
        area_px2=areas_px2,
        labels=rows_by_label,
        damaged=damaged,
    )


def _text(sample: Sample) -> str:
    turns = dict.fromkeys(turn.text for rendering in sample.renderings for turn in rendering.turns)
    return "\n".join(map(indexed, turns))
