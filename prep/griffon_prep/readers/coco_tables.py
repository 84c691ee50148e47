"""The tables that a COCO file is turned into: where each picture's entry lies, and the boxes sorted by picture.

Of a box only numbers are held, and those on disk; in memory are, for each box, its picture's number and its place.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.coco_file import BOX_ROW, NO_BOX, Boxes, Pictures, read_coco
from griffon_prep.readers.fields import NO_ID, text_field
from griffon_prep.readers.json_records import JsonRecords, line_row, lines_beside, span_rows
from griffon_prep.records import Rejected
from griffon_shards.errors import DataError
from griffon_shards.files import whole_file, write_whole
from griffon_shards.types import BoxXYXY

NO_CATEGORY = 4
"""Further flag of a stored box: its category is not in the file."""

_STORED = np.dtype([("xywh", "<f8", (4,)), ("category", "<u4"), ("flags", "u1")])
_PICTURES, _BOXES, _STARTS, _CATEGORIES = "pictures.bin", "boxes.bin", "starts.bin", "categories.json"
_UNSORTED = "unsorted.bin"
_BLOCK = 1 << 18  # rows
_NO_PICTURE = np.uint32(0xFFFFFFFF)

StoredBox = tuple[BoxXYXY, int, int]
"""x, y, width, height in pixels, the category's place in `CocoTables.names`, flags."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoScan:
    """What was found while the tables were written.

    Attributes:
        pictures: number of entries in `images`.
        names: category names by id.
        boxes_of: how many boxes each picture has, shape [pictures].
        strays: annotations of pictures that are not in the file.
    """

    pictures: int
    names: Mapping[int, str]
    boxes_of: NDArray[np.int64]
    strays: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the file."""
        return (f"{self.strays:,} annotations are of no picture in the file and were left out",) if self.strays else ()


def write_tables(annotation: Path, work: Path) -> CocoScan:
    """Write the tables of a file into a work folder.

    Raises:
        DataError: the file is damaged, or gives two pictures the same id.
    """
    ids: list[NDArray[np.int64]] = []
    names: dict[int, str] = {}
    unsorted = work / _UNSORTED
    table = work / _PICTURES
    with whole_file(table) as pictures, whole_file(lines_beside(table)) as lines, unsorted.open("w+b") as boxes:
        for part in read_coco(annotation):
            if isinstance(part, Pictures):
                ids.append(part.ids)
                pictures.write(span_rows(part.spans).tobytes())
                lines.write(line_row(part.spans).tobytes())
            elif isinstance(part, Boxes):
                boxes.write(part.rows.tobytes())
            else:
                names.update(part.names)
        boxes.flush()
        picture_ids = np.concatenate(ids) if ids else np.empty(0, np.int64)
        picture_of = _picture_of(boxes, picture_ids, str(annotation))
    order = np.argsort(picture_of, kind="stable")
    strays = int((picture_of == _NO_PICTURE).sum())
    _write_sorted(unsorted, order[: len(order) - strays], sorted(names), work / _BOXES)
    unsorted.unlink()
    boxes_of = np.bincount(picture_of[picture_of != _NO_PICTURE], minlength=len(picture_ids))
    write_whole(work / _STARTS, np.concatenate(([0], np.cumsum(boxes_of))).astype("<u8").tobytes())
    write_whole(work / _CATEGORIES, orjson.dumps(sorted(names.items())))
    return CocoScan(pictures=len(picture_ids), names=names, boxes_of=boxes_of, strays=strays)


def _picture_of(boxes: BinaryIO, picture_ids: NDArray[np.int64], name: str) -> NDArray[np.uint32]:
    """The picture's place for each box, in the file's order; `_NO_PICTURE` where there is none."""
    order = np.argsort(picture_ids, kind="stable")
    order = order[picture_ids[order] != NO_ID]
    known = picture_ids[order]
    if (same := known[1:][known[1:] == known[:-1]]).size:
        raise DataError(f"{name}: two entries of images have the id {same[0]}, so it is not known whose the boxes are")
    found = [np.empty(0, np.uint32)]
    boxes.seek(0)
    while raw := boxes.read(_BLOCK * BOX_ROW.itemsize):
        place, there = find_ids(known, np.frombuffer(raw, BOX_ROW)["image_id"])
        rows = np.full(len(place), _NO_PICTURE)
        rows[there] = order[place[there]]
        found.append(rows)
    return np.concatenate(found)


def find_ids(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each wanted id its place in the sorted ids, and whether it is there at all."""
    if not known.size:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return place, known[place] == wanted


def _write_sorted(unsorted: Path, order: NDArray[np.int64], category_ids: list[int], target: Path) -> None:
    """The boxes in this order."""
    known = np.array(category_ids, np.int64)
    rows = np.memmap(unsorted, BOX_ROW, "r") if order.size else np.empty(0, BOX_ROW)
    with whole_file(target) as out:
        for start in range(0, len(order), _BLOCK):
            block = rows[order[start : start + _BLOCK]]
            stored = np.zeros(len(block), _STORED)
            stored["xywh"] = block["xywh"]
            stored["category"], there = find_ids(known, block["category_id"])
            stored["flags"] = block["flags"]
            stored["flags"][~there] |= NO_CATEGORY
            out.write(stored.tobytes())


class CocoTables:
    """Reads the pictures and boxes of a scanned file by number.

    Attributes:
        names: category names, in order of their ids.
        name_of: category names by id.
    """

    def __init__(self, annotation: Path, work: Path) -> None:
        self._pictures = JsonRecords(annotation, work / _PICTURES)
        self._boxes = (work / _BOXES).open("rb")
        self._starts = (work / _STARTS).open("rb")
        self.name_of: dict[int, str] = dict(orjson.loads((work / _CATEGORIES).read_bytes()))
        self.names = list(self.name_of.values())

    def picture(self, number: int) -> dict[str, Any]:
        """The entry of a picture. Raises Rejected if it is no JSON object."""
        return self._pictures[number][0]

    def boxes(self, number: int) -> list[StoredBox]:
        """The boxes of a picture, in the file's order.

        Raises:
            Rejected: one of them is not four numbers.
        """
        start, stop = np.frombuffer(os.pread(self._starts.fileno(), 16, 8 * number), "<u8").tolist()
        raw = os.pread(self._boxes.fileno(), (stop - start) * _STORED.itemsize, start * _STORED.itemsize)
        rows = np.frombuffer(raw, _STORED)
        found: list[StoredBox] = [
            (tuple(xywh), category, flags)
            for xywh, category, flags in zip(
                rows["xywh"].tolist(), rows["category"].tolist(), rows["flags"].tolist(), strict=True
            )
        ]
        if any(flags & NO_BOX for _, _, flags in found):
            raise Rejected(
                "bad_record", "bbox, iscrowd: not four numbers, or not a number, in an annotation of the picture"
            )
        return found


def image_path_of(fields: Mapping[str, Any]) -> str:
    """Where an entry of `images` says the picture is: `file_name`, or in LVIS the last two parts of `coco_url`."""
    if "file_name" not in fields and "coco_url" in fields:
        return "/".join(text_field(fields, "coco_url").split("/")[-2:])
    return text_field(fields, "file_name")
