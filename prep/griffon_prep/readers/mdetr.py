"""The `mdetr` format: `finetune_refcoco_train.json` and similar; COCO's JSON with a caption in each image entry.

In RefCOCO's files every box of a caption belongs to the complete caption, although `tokens_positive` marks only its
root word. In others, such as Flickr30k's, boxes belong to parts of it: if that shows in any caption of a file, each
part of each caption is an expression of its own.
"""

from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import box_form, states_order
from griffon_prep.readers.coco_entries import image_elsewhere_of, image_path_of, naming
from griffon_prep.readers.coco_file import EMPTY
from griffon_prep.readers.coco_table_writer import write_tables
from griffon_prep.readers.coco_tables import CocoTables
from griffon_prep.readers.fields import short, side_field, text_field
from griffon_prep.readers.jsonscan.records import parse_json
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import Record, Region, Rejected, is_blank
from griffon_shards.support.files import write_whole
from griffon_shards.support.tables import counted
from griffon_shards.types import BoxXYXY

TASKS = ("REG", "VG")
OPTIONS = ("rounds", "boxes")
COMPANIONS = ()
EXAMPLES = {
    "finetune_refcoco_train.json": """\
{"images": [{"id": 0, "file_name": "COCO_train2014_000000000007.jpg", "height": 480, "width": 640,
   "original_id": 7, "caption": "the left cat", "dataset_name": "refcoco"}],
 "annotations": [{"id": 0, "image_id": 0, "category_id": 17, "bbox": [10, 20, 100, 200], "iscrowd": 0,
   "tokens_positive": [[0, 12]]}],
 "categories": [{"id": 17, "name": "cat"}]}""",
    "final_flickr_separateGT_train.json": """\
{"images": [{"id": 0, "file_name": "1000092795.jpg", "height": 480, "width": 640, "caption": "Two cats on a sofa .",
   "dataset_name": "flickr"}],
 "annotations": [
  {"id": 0, "image_id": 0, "category_id": 1, "bbox": [10, 20, 100, 200], "iscrowd": 0, "tokens_positive": [[0, 8]]},
  {"id": 1, "image_id": 0, "category_id": 1, "bbox": [200, 20, 90, 190], "iscrowd": 0, "tokens_positive": [[0, 8]]},
  {"id": 2, "image_id": 0, "category_id": 1, "bbox": [0, 90, 640, 300], "iscrowd": 0, "tokens_positive": [[12, 18]]}],
 "categories": [{"id": 1, "name": "object"}]}""",
}
_ENTRIES = "entries.bin"
_WHOLE, _DAMAGED = 0xFFFFFFFF, 0xFFFFFFFE  # instead of the number of a part: the complete caption, or an unknown part

_Parts = list[tuple[str, list[BoxXYXY]]]
"""Expressions, with their boxes as the file has them."""


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return (head.member == "images" and "caption" in head.element) or (
        head.member == "annotations" and "tokens_positive" in head.element
    )


def scan(inputs: AnnotationFiles) -> Scan:
    """Write COCO's tables and the list of usable expressions into the work folder; REG uses those with one box."""
    coco = write_tables(inputs.annotation, inputs.work, note_corners=not states_order(inputs.options))
    tables = CocoTables(inputs.annotation, inputs.work)
    in_parts = bool(tables.split_captions(coco.boxes_of).size)
    round_keys = RoundKeys(inputs.task)
    rows = array("I")
    expressions = 0
    for entry in range(coco.images):
        fields = _entry_or_none(tables, entry)
        image = _image_key(fields, entry)
        for part_no, phrase, boxes in _expressions(fields, tables, entry, in_parts=in_parts):
            expressions += 1
            count = len(boxes) if in_parts or part_no != _DAMAGED else int(coco.boxes_of[entry])
            if inputs.task == "REG" and count != 1 and not (in_parts and part_no == _DAMAGED):
                continue
            rows.extend((entry, part_no))
            round_keys.add(image, phrase, boxes)
    write_whole(inputs.work / _ENTRIES, np.array(rows, "<u4").tobytes())
    notes = list(coco.notes)
    if in_parts:
        notes.append("boxes belong to parts of the captions (tokens_positive), so each part is an expression")
        if without := int((coco.boxes_of == 0).sum()):
            notes.append(f"{without:,} of {counted(coco.images, 'caption')} skipped for lack of a box")
    if skipped := expressions - len(round_keys):
        notes.append(f"{skipped:,} of {counted(expressions, 'expression')} skipped: REG needs exactly one box")
    return Scan(records=len(round_keys), round_keys=round_keys, notes=tuple(notes))


def _entry_or_none(tables: CocoTables, entry: int) -> dict[str, Any] | None:
    try:
        return tables.image_entry(entry)
    except Rejected:
        return None


def _expressions(
    fields: Mapping[str, Any] | None, tables: CocoTables, entry: int, *, in_parts: bool
) -> Iterator[tuple[int, object, list[BoxXYXY]]]:
    """Yield the expressions of an entry: the number of its part of the caption, its text and its boxes."""
    caption = fields.get("caption") if fields is not None else None
    try:
        boxes = tables.boxes(entry)
        present = [xywh for xywh, _, flags in boxes if not flags & EMPTY]
        if not in_parts or (boxes and not present):
            yield _WHOLE, caption, present
        else:
            parts = _parts(caption, tables, entry)
            yield from ((part_no, phrase, of_part) for part_no, (phrase, of_part) in enumerate(parts))
    except Rejected:
        yield _DAMAGED, caption, []


def _image_key(fields: Mapping[str, Any] | None, entry: int) -> int:
    """Return the key of the image of an entry, for `rounds=`; one of its own if the entry names none."""
    name = f"entry {entry}"
    if fields is not None:
        with suppress(Rejected):
            name = f"{image_path_of(fields)} {short(fields.get('width'))} {short(fields.get('height'))}"
    return image_key(name.encode())


def _parts(caption: object, tables: CocoTables, entry: int) -> _Parts:
    """Return the parts of an entry's caption that have boxes, in order of their first boxes.

    Parts with the same text are one expression with the boxes of all of them: they could not be told apart.

    Raises:
        Rejected: the parts of one of the boxes are unknown, so any part may lack it; or a box means nothing is there.
    """
    if not isinstance(caption, str):
        raise Rejected("bad_record", f"caption: expected text, got {short(caption)}")
    parts: dict[str, list[BoxXYXY]] = {}
    for (xywh, _, flags), tokens in zip(tables.boxes(entry), tables.tokens(entry), strict=True):
        if flags & EMPTY:
            raise Rejected("bad_record", f"{short(caption)} is marked as absent (empty)")
        for phrase in dict.fromkeys(_phrases(caption, tokens)):
            parts.setdefault(phrase, []).append(xywh)
    return list(parts.items())


def _phrases(caption: str, tokens: bytes) -> list[str]:
    """Return the parts of a caption that `tokens_positive` names."""
    spans = parse_json(tokens or b"null")
    if not isinstance(spans, list) or not spans:
        raise Rejected(
            "bad_record", f"tokens_positive: expected a list of parts of {short(caption)}, got {short(spans)}"
        )
    phrases = []
    for span in spans:
        ends = span if isinstance(span, list) and len(span) == 2 and {type(end) for end in span} == {int} else None
        if ends is None or not 0 <= ends[0] < ends[1] <= len(caption) or is_blank(caption[ends[0] : ends[1]]):
            raise Rejected("bad_record", f"tokens_positive: {short(span)} is not a part of {short(caption)}")
        phrases.append(caption[ends[0] : ends[1]].strip())
    return phrases


class Reader:
    """Reads one scanned `mdetr` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._tables = CocoTables(inputs.annotation, inputs.work)
        self._entries = np.memmap(inputs.work / _ENTRIES, "<u4", "r").reshape(-1, 2)
        self._form = box_form(inputs.options, "xywh")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        entry, part_no = self._entries[record_no].tolist()
        fields = self._tables.image_entry(entry)
        with naming(fields):
            phrase, present = self._whole(fields, entry) if part_no == _WHOLE else self._part(fields, entry, part_no)
            return Record(
                record_no=record_no,
                image_path=image_path_of(fields),
                width_px=side_field(fields, "width"),
                height_px=side_field(fields, "height"),
                units_per_side=self._form.units_per_side,
                regions=tuple(Region(phrase=phrase, box_xyxy_px=self._form.corners(xywh)) for xywh in present),
                absent_phrases=() if present else (phrase,),
                image_elsewhere=image_elsewhere_of(fields),
            )

    def _part(self, fields: Mapping[str, Any], entry: int, part_no: int) -> tuple[str, list[BoxXYXY]]:
        parts = _parts(fields.get("caption"), self._tables, entry)
        assert part_no < len(parts), "the parts of a caption whose parts are unknown are refused above"
        return parts[part_no]

    def _whole(self, fields: Mapping[str, Any], entry: int) -> tuple[str, list[BoxXYXY]]:
        phrase = text_field(fields, "caption")
        boxes = self._tables.boxes(entry)
        present = [xywh for xywh, _, flags in boxes if not flags & EMPTY]
        if not boxes:
            raise Rejected("bad_record", f"{short(phrase)} has no box and no annotation marks it as absent (empty)")
        if present and len(present) < len(boxes):
            raise Rejected("bad_record", f"{short(phrase)} has a box and is also marked as absent (empty)")
        return phrase, present
