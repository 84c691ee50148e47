"""Writes the tables of a COCO file that `coco_tables` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.coco_corners import LOOK_AT, corner_notes, sides_of
from griffon_prep.readers.coco_file import BOX_ROW, EMPTY, NO_BOX, Boxes, Images, read_coco
from griffon_prep.readers.coco_tables import BOXES, CATEGORIES, FAULTS, IMAGES, NO_CATEGORY, STARTS, STORED, TOKENS
from griffon_prep.readers.fields import NO_ID, PLAIN_ID
from griffon_prep.readers.jsonscan.records import line_row, lines_beside, span_rows
from griffon_prep.readers.rounds import image_key
from griffon_prep.records import name_key
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file, write_whole
from griffon_shards.support.tables import counted

_UNSORTED = "unsorted.bin"
_MOST_FAULTS = 100_000  # faults with a message of their own: memory stays bounded for any file
_BLOCK = 1 << 18  # rows
_NO_IMAGE = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CocoScan:
    """Facts collected while the tables were written.

    Attributes:
        images: number of entries in `images`.
        names: category names by id.
        unused_kinds: names of categories that have no annotations and are supercategories of others.
        boxes_of: number of boxes of each image, shape [images].
        repeated: numbers of the entries whose image an earlier entry of `images` names too.
        notes: remarks about the file for the user.
    """

    images: int
    names: Mapping[int, str]
    unused_kinds: frozenset[str]
    boxes_of: NDArray[np.int64]
    repeated: NDArray[np.int64]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Gathered:
    """State held in memory while a file is read."""

    ids: list[NDArray[np.int64]] = field(default_factory=list)
    sides_px: list[NDArray[np.float32]] = field(default_factory=list)
    image_keys: list[NDArray[np.uint64]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    texts: dict[int, str] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    boxes: int = 0
    token_bytes: int = 0

    def add_boxes(self, part: Boxes, tokens: BinaryIO) -> None:
        """Add boxes, and write their `tokens_positive`, whose positions are set in the rows."""
        self.used.update(np.unique(part.rows["category_id"]).tolist())
        if len(self.texts) < _MOST_FAULTS:
            self.texts.update(part.texts)
        if len(self.faults) < _MOST_FAULTS:
            self.faults.update((self.boxes + index, fault) for index, fault in part.faults.items())
        self.boxes += len(part.rows)
        if any(part.tokens):
            lines = [text + b"\n" if text else b"" for text in part.tokens]
            ends = np.cumsum(list(map(len, lines)), dtype=np.uint64)
            part.rows["tokens"][:] = np.where(part.rows["spans"] > 0, self.token_bytes + ends, 0)
            tokens.write(b"".join(lines))
            self.token_bytes += int(ends[-1])


def write_tables(annotation: Path, work: Path, *, note_corners: bool = True) -> CocoScan:
    """Write the tables of a file into a work folder.

    Args:
        annotation: the file.
        work: the folder.
        note_corners: add a note if the boxes look like corners.

    Raises:
        DataError: the file is damaged, or two images have the same id.
    """
    gathered = _Gathered()
    unsorted = work / _UNSORTED
    table = work / IMAGES
    with (
        whole_file(table) as spans,
        whole_file(lines_beside(table)) as lines,
        whole_file(work / TOKENS) as tokens,
        unsorted.open("w+b") as boxes,
    ):
        for part in read_coco(annotation):
            if isinstance(part, Images):
                gathered.ids.append(part.ids)
                gathered.sides_px.append(sides_of(part.values))
                gathered.image_keys.append(_image_keys(part.values))
                spans.write(span_rows(part.spans).tobytes())
                lines.write(line_row(part.spans).tobytes())
            elif isinstance(part, Boxes):
                gathered.add_boxes(part, tokens)
                boxes.write(part.rows.tobytes())
            else:
                gathered.names.update(part.names)
                gathered.kinds.update(part.kinds)
        boxes.flush()
        image_ids = np.concatenate(gathered.ids) if gathered.ids else np.empty(0, np.int64)
        image_of = _image_of(boxes, image_ids, str(annotation))
    rows = np.memmap(unsorted, BOX_ROW, "r") if gathered.boxes else np.empty(0, BOX_ROW)
    order = np.argsort(image_of, kind="stable")
    strays = order[np.searchsorted(image_of, _NO_IMAGE, sorter=order) :]
    faults = _write_sorted(rows, order[: len(order) - len(strays)], gathered, work / BOXES)
    corners = _corner_notes(rows[:LOOK_AT], image_of[:LOOK_AT], gathered) if note_corners else ()
    notes = (*_stray_notes(rows, strays), *corners)
    unsorted.unlink()
    boxes_of = np.bincount(image_of[image_of != _NO_IMAGE], minlength=len(image_ids))
    if ((boxes_of == 0) & (image_ids != NO_ID)).any():
        _check_strays(rows, strays, image_ids, str(annotation))
    write_whole(work / STARTS, np.concatenate(([0], np.cumsum(boxes_of))).astype("<u8").tobytes())
    categories = [
        (category_id, name, gathered.kinds.get(category_id, "")) for category_id, name in sorted(gathered.names.items())
    ]
    write_whole(work / CATEGORIES, orjson.dumps(categories))
    write_whole(work / FAULTS, orjson.dumps(list(faults.items())))
    return CocoScan(
        images=len(image_ids),
        names=gathered.names,
        unused_kinds=_unused_kinds(gathered),
        boxes_of=boxes_of,
        repeated=_repeated(gathered.image_keys),
        notes=notes,
    )


def _image_keys(values: Sequence[Any]) -> NDArray[np.uint64]:
    """Return a key of the image that each entry of `images` names, or 0; shape [entries]."""
    names = [(value.get("file_name") or value.get("coco_url")) if isinstance(value, dict) else None for value in values]
    keys = [image_key(name.encode("utf-8", "replace")) if isinstance(name, str) else 0 for name in names]
    return np.array(keys, np.uint64)


def _repeated(image_keys: Sequence[NDArray[np.uint64]]) -> NDArray[np.int64]:
    keys = np.concatenate(image_keys) if image_keys else np.empty(0, np.uint64)
    _, first = np.unique(keys, return_index=True)
    later = np.ones(len(keys), bool)
    later[first] = False
    return np.flatnonzero(later & (keys != 0))


def _unused_kinds(gathered: _Gathered) -> frozenset[str]:
    names = gathered.names
    used = {name_key(name) for category_id, name in names.items() if category_id in gathered.used}
    kinds = {
        name_key(kind) for category_id, kind in gathered.kinds.items() if name_key(kind) != name_key(names[category_id])
    }
    return frozenset(name for name in names.values() if name_key(name) in kinds - used)


def _check_strays(rows: NDArray[np.void], strays: NDArray[np.int64], image_ids: NDArray[np.int64], file: str) -> None:
    """Raise DataError if annotations may belong to images that have none, but write their ids in another way."""
    wanted = rows["image_id"][strays]
    text_ids = bool(((image_ids <= -PLAIN_ID) & (image_ids != NO_ID)).any())
    unlike = strays[(wanted == NO_ID) | ((wanted <= -PLAIN_ID) & (not text_ids))]
    if unlike.size:
        raise DataError(
            f"{file}: image_id: {counted(unlike.size, 'annotation has', 'annotations have')} an id unlike any id in "
            f"images{_example(rows[unlike[0]])}, so images may lack their boxes; expected the id of an image"
        )


def _stray_notes(rows: NDArray[np.void], strays: NDArray[np.int64]) -> tuple[str, ...]:
    """Return notes about the annotations at these rows, whose images are not in the file."""
    without_id = rows["image_id"][strays] == NO_ID
    notes = []
    for indices, what in (
        (strays[without_id], "whose image_id is neither text nor a whole number"),
        (strays[~without_id], "whose image_id is not in images"),
    ):
        if indices.size:
            notes.append(f"annotations {what}, skipped: {indices.size:,}{_example(rows[indices[0]])}")
    return tuple(notes)


def _corner_notes(rows: NDArray[np.void], image_of: NDArray[np.uint32], gathered: _Gathered) -> tuple[str, ...]:
    usable = (image_of != _NO_IMAGE) & (rows["flags"] & (NO_BOX | EMPTY) == 0)
    if not usable.any():
        return ()
    return corner_notes(rows["xywh"][usable], np.concatenate(gathered.sides_px)[image_of[usable]])


def _example(row: np.void) -> str:
    """Return the ids of an annotation for a message, as far as they are numbers."""
    annotation_id, image_id = int(row["id"]), int(row["image_id"])
    if annotation_id <= -PLAIN_ID:
        return ""
    return f" (the first is annotation {annotation_id}{f', image_id {image_id}' if image_id > -PLAIN_ID else ''})"


def _image_of(boxes: BinaryIO, image_ids: NDArray[np.int64], name: str) -> NDArray[np.uint32]:
    """Return the index of each box's image, in file order; `_NO_IMAGE` where it is not in the file."""
    order = np.argsort(image_ids, kind="stable")
    order = order[image_ids[order] != NO_ID]
    known = image_ids[order]
    if (twice := np.flatnonzero(known[1:] == known[:-1])).size:
        first, second = order[twice[0]], order[twice[0] + 1]
        shown = f" {known[twice[0]]}" if known[twice[0]] > -PLAIN_ID else ""
        raise DataError(
            f"{name}: two entries of images have the same id{shown} (entries {first} and {second}, counted from 0; "
            '7 and "007" are the same id), so their boxes cannot be told apart; give each image an id of its own'
        )
    blocks = [np.empty(0, np.uint32)]
    boxes.seek(0)
    while raw := boxes.read(_BLOCK * BOX_ROW.itemsize):
        index, present = find_ids(known, np.frombuffer(raw, BOX_ROW)["image_id"])
        rows = np.full(len(index), _NO_IMAGE)
        rows[present] = order[index[present]]
        blocks.append(rows)
    return np.concatenate(blocks)


def find_ids(known: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Look up ids in a sorted array: the index of each wanted id, and whether it is present."""
    if not known.size:
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    index = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return index, known[index] == wanted


def _write_sorted(
    rows: NDArray[np.void], order: NDArray[np.int64], gathered: _Gathered, target: Path
) -> dict[int, str]:
    """Write the boxes in this order; return the error messages of unusable boxes by their position in it."""
    known = np.array(sorted(gathered.names), np.int64)
    faults: dict[int, str] = {}
    with whole_file(target) as out:
        for start in range(0, len(order), _BLOCK):
            indices = order[start : start + _BLOCK]
            block = rows[indices]
            stored = np.zeros(len(block), STORED)
            for name in ("xywh", "spans", "tokens", "flags"):
                stored[name] = block[name]
            stored["category"], present = find_ids(known, block["category_id"])
            stored["flags"][~present] |= NO_CATEGORY
            out.write(stored.tobytes())
            bad = np.flatnonzero(stored["flags"] & (NO_BOX | NO_CATEGORY))[: _MOST_FAULTS - len(faults)]
            for index in bad.tolist():
                box_fault = gathered.faults.get(int(indices[index]))
                faults[start + index] = box_fault or _category_fault(block[index], gathered.texts)
    return faults


def _category_fault(row: np.void, texts: Mapping[int, str]) -> str:
    annotation_id, category = int(row["id"]), int(row["category_id"])
    which = f"annotation {annotation_id}" if annotation_id > -PLAIN_ID else "an annotation"
    if category == NO_ID:
        return f"{which}: category_id: expected text or a whole number"
    return f"{which}: category_id: {texts.get(category, category)} is not in categories, or has no name there"
