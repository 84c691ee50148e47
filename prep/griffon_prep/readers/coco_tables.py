"""The tables that a COCO file is turned into: where each picture's entry lies, and the boxes sorted by picture.

Of a box only numbers are held, and those on disk; in memory are, for each box, its picture's number and its place.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.coco_corners import LOOK_AT, corner_notes, sides_of
from griffon_prep.readers.coco_file import BOX_ROW, EMPTY, NO_BOX, Boxes, Images, read_coco
from griffon_prep.readers.fields import NO_ID, PLAIN_ID, checked_id
from griffon_prep.readers.jsonscan.records import JsonRecords, line_row, lines_beside, span_rows
from griffon_prep.records import Rejected, name_key
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file, write_whole
from griffon_shards.types import BoxXYXY

NO_CATEGORY = 4
"""Further flag of a stored box: its category is not in the file."""

_STORED = np.dtype([("xywh", "<f8", (4,)), ("category", "<u4"), ("spans", "<u4"), ("flags", "u1")])
_IMAGES, _BOXES, _STARTS, _CATEGORIES = "pictures.bin", "boxes.bin", "starts.bin", "categories.json"
_FAULTS, _UNSORTED = "faults.json", "unsorted.bin"
_MOST_FAULTS = 100_000  # that are told one by one: memory stays bounded whatever is in the file
_BLOCK = 1 << 18  # rows
_NO_IMAGE = np.uint32(0xFFFFFFFF)

StoredBox = tuple[BoxXYXY, int, int]
"""x, y, width, height in pixels, the category's place in `CocoTables.names`, flags."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoScan:
    """What was found while the tables were written.

    Attributes:
        pictures: number of entries in `images`.
        names: category names by id.
        unused_kinds: names of categories that no annotation has and others name as their supercategory.
        boxes_of: how many boxes each picture has, shape [pictures].
        notes: what the user should know of the file.
    """

    pictures: int
    names: Mapping[int, str]
    unused_kinds: frozenset[str]
    boxes_of: NDArray[np.int64]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Gathered:
    """What is held in memory of a file while it is read."""

    ids: list[NDArray[np.int64]] = field(default_factory=list)
    sides_px: list[NDArray[np.float32]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    texts: dict[int, str] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    boxes: int = 0

    def add_boxes(self, part: Boxes) -> None:
        self.used.update(np.unique(part.rows["category_id"]).tolist())
        if len(self.texts) < _MOST_FAULTS:
            self.texts.update(part.texts)
        if len(self.faults) < _MOST_FAULTS:
            self.faults.update((self.boxes + place, fault) for place, fault in part.faults.items())
        self.boxes += len(part.rows)


def write_tables(annotation: Path, work: Path) -> CocoScan:
    """Write the tables of a file into a work folder.

    Raises:
        DataError: the file is damaged, or gives two pictures the same id.
    """
    found = _Gathered()
    unsorted = work / _UNSORTED
    table = work / _IMAGES
    with whole_file(table) as pictures, whole_file(lines_beside(table)) as lines, unsorted.open("w+b") as boxes:
        for part in read_coco(annotation):
            if isinstance(part, Images):
                found.ids.append(part.ids)
                found.sides_px.append(sides_of(part.values))
                pictures.write(span_rows(part.spans).tobytes())
                lines.write(line_row(part.spans).tobytes())
            elif isinstance(part, Boxes):
                boxes.write(part.rows.tobytes())
                found.add_boxes(part)
            else:
                found.names.update(part.names)
                found.kinds.update(part.kinds)
        boxes.flush()
        image_ids = np.concatenate(found.ids) if found.ids else np.empty(0, np.int64)
        image_of = _image_of(boxes, image_ids, str(annotation))
    rows = np.memmap(unsorted, BOX_ROW, "r") if found.boxes else np.empty(0, BOX_ROW)
    order = np.argsort(image_of, kind="stable")
    strays = order[np.searchsorted(image_of, _NO_IMAGE, sorter=order) :]
    faults = _write_sorted(rows, order[: len(order) - len(strays)], found, work / _BOXES)
    notes = (*_stray_notes(rows, strays), *_corner_notes(rows[:LOOK_AT], image_of[:LOOK_AT], found))
    unsorted.unlink()
    boxes_of = np.bincount(image_of[image_of != _NO_IMAGE], minlength=len(image_ids))
    write_whole(work / _STARTS, np.concatenate(([0], np.cumsum(boxes_of))).astype("<u8").tobytes())
    categories = [(number, name, found.kinds.get(number, "")) for number, name in sorted(found.names.items())]
    write_whole(work / _CATEGORIES, orjson.dumps(categories))
    write_whole(work / _FAULTS, orjson.dumps(list(faults.items())))
    return CocoScan(
        pictures=len(image_ids),
        names=found.names,
        unused_kinds=_unused_kinds(found),
        boxes_of=boxes_of,
        notes=notes,
    )


def _unused_kinds(found: _Gathered) -> frozenset[str]:
    used = {name_key(name) for number, name in found.names.items() if number in found.used}
    named = {name_key(kind) for number, kind in found.kinds.items() if name_key(kind) != name_key(found.names[number])}
    return frozenset(name for name in found.names.values() if name_key(name) in named - used)


def _stray_notes(rows: NDArray[np.void], strays: NDArray[np.int64]) -> tuple[str, ...]:
    """What to say of the annotations at these places, whose pictures are not in the file."""
    of_none = rows["image_id"][strays] == NO_ID
    notes = []
    for places, what in (
        (strays[of_none], "whose image_id is neither text nor a whole number"),
        (strays[~of_none], "of no picture in the file"),
    ):
        if places.size:
            notes.append(f"annotations {what}, left out: {places.size:,}{_example(rows[places[0]])}")
    return tuple(notes)


def _corner_notes(rows: NDArray[np.void], image_of: NDArray[np.uint32], found: _Gathered) -> tuple[str, ...]:
    usable = (image_of != _NO_IMAGE) & (rows["flags"] & (NO_BOX | EMPTY) == 0)
    if not usable.any():
        return ()
    return corner_notes(rows["xywh"][usable], np.concatenate(found.sides_px)[image_of[usable]])


def _example(row: np.void) -> str:
    """An annotation by its numbers, if they are numbers."""
    number, image_id = int(row["id"]), int(row["image_id"])
    if number <= -PLAIN_ID:
        return ""
    return f" (the first is annotation {number}{f', image_id {image_id}' if image_id > -PLAIN_ID else ''})"


def _image_of(boxes: BinaryIO, image_ids: NDArray[np.int64], name: str) -> NDArray[np.uint32]:
    """The picture's place for each box, in the file's order; `_NO_IMAGE` where there is none."""
    order = np.argsort(image_ids, kind="stable")
    order = order[image_ids[order] != NO_ID]
    known = image_ids[order]
    if (twice := np.flatnonzero(known[1:] == known[:-1])).size:
        first, second = order[twice[0]], order[twice[0] + 1]
        number = f" {known[twice[0]]}" if known[twice[0]] > -PLAIN_ID else ""
        raise DataError(
            f"{name}: two entries of images have the id{number} (numbers {first} and {second}, counted from 0; 7 and "
            '"007" are one id), so it is not known whose the boxes are'
        )
    found = [np.empty(0, np.uint32)]
    boxes.seek(0)
    while raw := boxes.read(_BLOCK * BOX_ROW.itemsize):
        place, there = find_ids(known, np.frombuffer(raw, BOX_ROW)["image_id"])
        rows = np.full(len(place), _NO_IMAGE)
        rows[there] = order[place[there]]
        found.append(rows)
    return np.concatenate(found)


def find_ids(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each wanted id its place in the sorted ids, and whether it is there at all."""
    if not known.size:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return place, known[place] == wanted


def _write_sorted(rows: NDArray[np.void], order: NDArray[np.int64], found: _Gathered, target: Path) -> dict[int, str]:
    """Write the boxes in this order; gives, by place in it, what is wrong with those that cannot be used."""
    known = np.array(sorted(found.names), np.int64)
    faults: dict[int, str] = {}
    with whole_file(target) as out:
        for start in range(0, len(order), _BLOCK):
            places = order[start : start + _BLOCK]
            block = rows[places]
            stored = np.zeros(len(block), _STORED)
            stored["xywh"], stored["spans"], stored["flags"] = block["xywh"], block["spans"], block["flags"]
            stored["category"], there = find_ids(known, block["category_id"])
            stored["flags"][~there] |= NO_CATEGORY
            out.write(stored.tobytes())
            bad = np.flatnonzero(stored["flags"] & (NO_BOX | NO_CATEGORY))[: _MOST_FAULTS - len(faults)]
            for place in bad.tolist():
                told = found.faults.get(int(places[place]))
                faults[start + place] = told or _category_fault(block[place], found.texts)
    return faults


def _category_fault(row: np.void, texts: Mapping[int, str]) -> str:
    number, category = int(row["id"]), int(row["category_id"])
    which = f"annotation {number}" if number > -PLAIN_ID else "an annotation"
    if category == NO_ID:
        return f"{which}: category_id: expected text or a whole number"
    return f"{which}: category_id: {texts.get(category, category)} is not in categories, or has no name there"


class CocoTables:
    """Reads the pictures and boxes of a scanned file by number.

    Attributes:
        names: category names, in order of their ids.
        name_of: category names by id.
        kinds_of: by category name, the other categories that it is a kind of, by supercategory.
    """

    def __init__(self, annotation: Path, work: Path) -> None:
        self._images = JsonRecords(annotation, work / _IMAGES)
        self._boxes = (work / _BOXES).open("rb")
        self._starts = (work / _STARTS).open("rb")
        self._fault_file = work / _FAULTS
        self._faults: dict[int, str] | None = None
        categories: list[tuple[int, str, str]] = orjson.loads((work / _CATEGORIES).read_bytes())
        self.name_of = {number: name for number, name, _ in categories}
        self.names = list(self.name_of.values())
        self.kinds_of = _kinds_of(categories)

    def picture(self, number: int) -> dict[str, Any]:
        """The entry of a picture.

        Raises:
            Rejected: it is no JSON object, or has no id, so that its boxes are not known.
        """
        fields = self._images[number][0]
        checked_id(fields, "id")
        return fields

    def boxes(self, number: int) -> list[StoredBox]:
        """The boxes of a picture, in the file's order.

        Raises:
            Rejected: one of them is not four numbers.
        """
        rows = self._rows(number)
        if (rows["flags"] & NO_BOX).any():
            raise self.fault(number, NO_BOX)
        return [
            (tuple(xywh), category, flags)
            for xywh, category, flags in zip(
                rows["xywh"].tolist(), rows["category"].tolist(), rows["flags"].tolist(), strict=True
            )
        ]

    def fault(self, number: int, flag: int) -> Rejected:
        """Why a picture that has a box of this flag is rejected."""
        first = self._bounds(number)[0] + int(np.flatnonzero(self._rows(number)["flags"] & flag)[0])
        if self._faults is None:
            self._faults = dict(orjson.loads(self._fault_file.read_bytes()))
        return Rejected("bad_record", self._faults.get(first, "bbox, iscrowd or category_id of an annotation"))

    def split_captions(self, boxes_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pictures whose boxes belong to different parts of the caption, by how many boxes each picture has."""
        spans = self._column("spans")
        owner = np.repeat(np.arange(len(boxes_of)), boxes_of)[spans != 0]
        spans = spans[spans != 0]
        return np.unique(owner[1:][(owner[1:] == owner[:-1]) & (spans[1:] != spans[:-1])])

    def flagged(self, flag: int, boxes_of: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many boxes with this flag each picture has, by how many it has at all."""
        owner = np.repeat(np.arange(len(boxes_of)), boxes_of)
        return np.bincount(owner[(self._column("flags") & flag) != 0], minlength=len(boxes_of))

    def _column(self, name: str) -> NDArray[Any]:
        """A column of all boxes, by picture."""
        boxes = Path(self._boxes.name)
        rows = np.memmap(boxes, _STORED, "r") if boxes.stat().st_size else np.empty(0, _STORED)
        return np.array(rows[name])

    def _bounds(self, number: int) -> tuple[int, int]:
        start, stop = np.frombuffer(os.pread(self._starts.fileno(), 16, 8 * number), "<u8").tolist()
        return start, stop

    def _rows(self, number: int) -> NDArray[np.void]:
        start, stop = self._bounds(number)
        raw = os.pread(self._boxes.fileno(), (stop - start) * _STORED.itemsize, start * _STORED.itemsize)
        return np.frombuffer(raw, _STORED)


def _kinds_of(categories: Sequence[tuple[int, str, str]]) -> dict[str, tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    above: dict[str, set[str]] = {}
    for _, name, kind in categories:
        names.setdefault(name_key(name), []).append(name)
        above.setdefault(name_key(name), set()).add(name_key(kind))
    found: dict[str, tuple[str, ...]] = {}
    for _, name, _ in categories:
        reached, left = {name_key(name)}, [name_key(name)]
        while left:
            new = {key for key in above[left.pop()] if key in names} - reached
            reached |= new
            left += new
        kinds = [other for key in sorted(reached - {name_key(name)}) for other in names[key]]
        if kinds:
            found[name] = tuple(kinds)
    return found
