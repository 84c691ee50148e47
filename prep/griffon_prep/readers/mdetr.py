"""The `mdetr` format: `finetune_refcoco_train.json` and similar; COCO's JSON with an expression in each image entry."""

import numpy as np

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.coco_entries import image_elsewhere_of, image_path_of, naming
from griffon_prep.readers.coco_file import EMPTY
from griffon_prep.readers.coco_tables import CocoTables, write_tables
from griffon_prep.readers.fields import corners_of, short, side_field, text_field
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import write_whole

TASKS = ("REG", "VG")
OPTIONS = ("rounds",)
COMPANIONS = ()
EXAMPLES = {
    "finetune_refcoco_train.json": """\
{"images": [{"id": 0, "file_name": "COCO_train2014_000000000007.jpg", "height": 480, "width": 640,
   "original_id": 7, "caption": "the left cat", "dataset_name": "refcoco"}],
 "annotations": [{"id": 0, "image_id": 0, "category_id": 17, "bbox": [10, 20, 100, 200], "iscrowd": 0,
   "tokens_positive": [[0, 12]]}],
 "categories": [{"id": 17, "name": "cat"}]}""",
}
_ENTRIES = "entries.bin"


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return (head.member == "images" and "caption" in head.element) or (
        head.member == "annotations" and "tokens_positive" in head.element
    )


def scan(inputs: AnnotationFiles) -> Scan:
    """Write COCO's tables and the list of usable entries into the work folder; REG uses entries with one box.

    Raises:
        SettingsError: the boxes of a caption belong to different parts of it, so the caption describes none of them.
    """
    coco = write_tables(inputs.annotation, inputs.work)
    tables = CocoTables(inputs.annotation, inputs.work)
    if (split := tables.split_captions(coco.boxes_of)).size:
        raise SettingsError(
            f"{inputs.annotation}: in {split.size:,} of {coco.images:,} captions the boxes belong to parts of the "
            f"caption (tokens_positive), for example {_caption_of(tables, int(split[0]))}; {inputs.task} needs boxes "
            "that belong to the complete caption, as in RefCOCO's files; remove this file from the manifest"
        )
    entries = np.arange(coco.images)
    if inputs.task == "REG":
        entries = np.flatnonzero((coco.boxes_of == 1) & (tables.flagged(EMPTY, coco.boxes_of) == 0))
    write_whole(inputs.work / _ENTRIES, entries.astype("<u4").tobytes())
    round_keys = RoundKeys(inputs.task)
    for entry in entries.tolist():
        try:
            fields = tables.image_entry(entry)
            name = f"{image_path_of(fields)} {short(fields.get('width'))} {short(fields.get('height'))}"
            phrase = fields.get("caption")
            boxes = [xywh for xywh, _, flags in tables.boxes(entry) if not flags & EMPTY]
        except Rejected:
            name, phrase, boxes = f"entry {entry}", None, []
        round_keys.add(image_key(name.encode()), phrase, boxes)
    skipped = coco.images - len(entries)
    note = f"{skipped:,} of {coco.images:,} expressions skipped: REG needs exactly one box"
    return Scan(
        records=len(entries),
        round_keys=round_keys,
        notes=(*coco.notes, *((note,) if skipped else ())),
    )


def _caption_of(tables: CocoTables, entry: int) -> str:
    try:
        return short(tables.image_entry(entry).get("caption"))
    except Rejected:
        return f"entry {entry}"


class Reader:
    """Reads one scanned `mdetr` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._tables = CocoTables(inputs.annotation, inputs.work)
        self._entries = np.memmap(inputs.work / _ENTRIES, "<u4", "r")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        entry = int(self._entries[record_no])
        fields = self._tables.image_entry(entry)
        with naming(fields):
            phrase = text_field(fields, "caption")
            boxes = self._tables.boxes(entry)
            present = [xywh for xywh, _, flags in boxes if not flags & EMPTY]
            if not boxes:
                raise Rejected("bad_record", f"{short(phrase)} has no box and no annotation marks it as absent (empty)")
            if present and len(present) < len(boxes):
                raise Rejected("bad_record", f"{short(phrase)} has a box and is also marked as absent (empty)")
            return Record(
                record_no=record_no,
                image_path=image_path_of(fields),
                width_px=side_field(fields, "width"),
                height_px=side_field(fields, "height"),
                regions=tuple(Region(phrase=phrase, box_xyxy_px=corners_of(xywh)) for xywh in present),
                absent_phrases=() if present else (phrase,),
                image_elsewhere=image_elsewhere_of(fields),
            )
