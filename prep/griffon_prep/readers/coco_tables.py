"""On-disk tables of a COCO file: the position of each image's entry, and the boxes sorted by image.

`coco_table_writer` writes them. Boxes stay on disk; only the image index and the position of each box are held in
memory.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.coco_file import NO_BOX
from griffon_prep.readers.fields import checked_id
from griffon_prep.readers.jsonscan.records import JsonRecords
from griffon_prep.records import Rejected, name_key
from griffon_shards.types import BoxXYXY

NO_CATEGORY = 4
"""Additional flag of a stored box: its category is not in the file."""

STORED = np.dtype([("xywh", "<f8", (4,)), ("category", "<u4"), ("spans", "<u4"), ("tokens", "<u8"), ("flags", "u1")])
"""A stored box; `tokens` is where its line in the file of tokens ends, 0 if it has none."""

IMAGES, BOXES, STARTS, CATEGORIES = "images.bin", "boxes.bin", "starts.bin", "categories.json"
FAULTS, TOKENS = "faults.json", "tokens.jsonl"
_TOKENS_READ = 256  # bytes: most are shorter

StoredBox = tuple[BoxXYXY, int, int]
"""x, y, width, height in pixels; index of the category in `CocoTables.names`; flags."""


class CocoTables:
    """Reads the images and boxes of a scanned file by index.

    Attributes:
        names: category names, in order of their ids.
        name_of: category names by id.
        kinds_of: by category name, the categories above it: its supercategory, the supercategory of that, and so on.
    """

    def __init__(self, annotation: Path, work: Path) -> None:
        self._images = JsonRecords(annotation, work / IMAGES)
        self._boxes = (work / BOXES).open("rb")
        self._starts = (work / STARTS).open("rb")
        self._tokens = (work / TOKENS).open("rb")
        self._fault_file = work / FAULTS
        self._faults: dict[int, str] | None = None
        categories: list[tuple[int, str, str]] = orjson.loads((work / CATEGORIES).read_bytes())
        self.name_of = {category_id: name for category_id, name, _ in categories}
        self.names = list(self.name_of.values())
        self.kinds_of = _kinds_of(categories)

    def image_entry(self, image_no: int) -> dict[str, Any]:
        """Return the entry of an image.

        Raises:
            Rejected: the entry is not a JSON object, or has no id, so that its boxes are unknown.
        """
        fields = self._images[image_no][0]
        checked_id(fields, "id")
        return fields

    def boxes(self, image_no: int) -> list[StoredBox]:
        """Return the boxes of an image, in file order.

        Raises:
            Rejected: one of them is not four numbers.
        """
        rows = self._rows(image_no)
        if (rows["flags"] & NO_BOX).any():
            raise self.fault(image_no, NO_BOX)
        return [
            (tuple(xywh), category, flags)
            for xywh, category, flags in zip(
                rows["xywh"].tolist(), rows["category"].tolist(), rows["flags"].tolist(), strict=True
            )
        ]

    def tokens(self, image_no: int) -> list[bytes]:
        """Return `tokens_positive` of the boxes of an image, in file order, as JSON; empty where missing."""
        return [self._tokens_ending_at(end) if end else b"" for end in self._rows(image_no)["tokens"].tolist()]

    def _tokens_ending_at(self, end: int) -> bytes:
        """Return the line of the file of tokens that ends at this position."""
        size = _TOKENS_READ
        while True:
            start = max(0, end - size)
            *_, line = (b"\n" + os.pread(self._tokens.fileno(), end - 1 - start, start)).rsplit(b"\n", 1)
            if len(line) < end - 1 - start or start == 0:
                return line
            size *= 16

    def fault(self, image_no: int, flag: int) -> Rejected:
        """Return the rejection of an image that has a box with this flag."""
        first = self._bounds(image_no)[0] + int(np.flatnonzero(self._rows(image_no)["flags"] & flag)[0])
        if self._faults is None:
            self._faults = dict(orjson.loads(self._fault_file.read_bytes()))
        return Rejected("bad_record", self._faults.get(first, "bad bbox, iscrowd or category_id in an annotation"))

    def split_captions(self, boxes_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the images whose boxes belong to different parts of the caption, given the box count of each."""
        spans = self._column("spans")
        owner = np.repeat(np.arange(len(boxes_of)), boxes_of)[spans != 0]
        spans = spans[spans != 0]
        return np.unique(owner[1:][(owner[1:] == owner[:-1]) & (spans[1:] != spans[:-1])])

    def flagged(self, flag: int, boxes_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the boxes with this flag in each image, given the box count of each."""
        owner = np.repeat(np.arange(len(boxes_of)), boxes_of)
        return np.bincount(owner[(self._column("flags") & flag) != 0], minlength=len(boxes_of))

    def _column(self, name: str) -> NDArray[Any]:
        """Return a column of all boxes, sorted by image."""
        boxes = Path(self._boxes.name)
        rows = np.memmap(boxes, STORED, "r") if boxes.stat().st_size else np.empty(0, STORED)
        return np.array(rows[name])

    def _bounds(self, image_no: int) -> tuple[int, int]:
        start, stop = np.frombuffer(os.pread(self._starts.fileno(), 16, 8 * image_no), "<u8").tolist()
        return start, stop

    def _rows(self, image_no: int) -> NDArray[np.void]:
        start, stop = self._bounds(image_no)
        raw = os.pread(self._boxes.fileno(), (stop - start) * STORED.itemsize, start * STORED.itemsize)
        return np.frombuffer(raw, STORED)


def _kinds_of(categories: Sequence[tuple[int, str, str]]) -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    above: dict[str, set[str]] = {}
    for _, name, kind in categories:
        names.setdefault(name_key(name), []).append(name)
        above.setdefault(name_key(name), set()).add(name_key(kind))
    kinds_of: dict[str, tuple[str, ...]] = {}
    for _, name, _ in categories:
        reached, pending = {name_key(name)}, [name_key(name)]
        while pending:
            new = {key for key in above[pending.pop()] if key in names} - reached
            reached |= new
            pending += new
        kinds = [other for key in sorted(reached - {name_key(name)}) for other in names[key]]
        if kinds:
            kinds_of[name] = tuple(kinds)
    return kinds_of
