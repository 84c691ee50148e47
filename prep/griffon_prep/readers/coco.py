"""The `coco` format: Objects365, COCO, LVIS, V3Det; one image per record, boxes as x, y, width, height in pixels."""

from collections.abc import Mapping
from typing import Any

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import box_form, states_order
from griffon_prep.readers.coco_entries import image_elsewhere_of, image_path_of, naming
from griffon_prep.readers.coco_file import CROWD, EMPTY
from griffon_prep.readers.coco_table_writer import CocoScan, write_tables
from griffon_prep.readers.coco_tables import NO_CATEGORY, CocoTables
from griffon_prep.readers.fields import id_of, list_field, short, side_field
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.types import IMAGE_TOKEN

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ("boxes",)
COMPANIONS = ()
EXAMPLES = {
    "instances.json": """\
{"images": [{"id": 7, "file_name": "train2017/000000000007.jpg", "height": 480, "width": 640}],
 "annotations": [
  {"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 20, 100, 200], "iscrowd": 0},
  {"id": 2, "image_id": 7, "category_id": 18, "bbox": [300, 40.5, 120, 159.5], "iscrowd": 1}],
 "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]}""",
    "lvis_v1_train.json": """\
{"images": [{"id": 7, "coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg", "height": 480,
   "width": 640, "neg_category_ids": [2], "not_exhaustive_category_ids": []}],
 "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [10, 20, 100, 200]}],
 "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cow"}]}""",
}


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return head.member in ("images", "annotations")  # true of MDETR's files too, so `mdetr` is tried first


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the tables of images and boxes into the work folder.

    The vocabulary is the file's list of categories, without unused categories that are supercategories of others: an
    image full of their subcategories would be labelled as having none of them.
    """
    coco = write_tables(inputs.annotation, inputs.work, note_corners=not states_order(inputs.options))
    file_notes = (*coco.notes, *_repeated_notes(coco, CocoTables(inputs.annotation, inputs.work)))
    if inputs.task not in ("DET", "RANDDET"):
        return Scan(records=coco.images, notes=file_notes)
    names = {name for name in coco.names.values() if IMAGE_TOKEN not in name} - coco.unused_kinds
    notes = [
        f"category {short(name)} is never asked for: it has no annotations and is the supercategory of others"
        for name in sorted(coco.unused_kinds)
    ]
    return Scan(records=coco.images, vocabulary=tuple(sorted(names)), notes=(*file_notes, *notes))


def _repeated_notes(coco: CocoScan, tables: CocoTables) -> tuple[str, ...]:
    """Return a note if an image has several entries: each is a record of its own, which knows its own boxes only."""
    if not coco.repeated.size:
        return ()
    try:
        name = short(image_path_of(tables.image_entry(int(coco.repeated[0]))))
    except Rejected:
        name = f"entry {coco.repeated[0]}"
    return (
        f"entries of images that name the image of an earlier entry: {coco.repeated.size:,}, such as {name}; what "
        "only the other entry has boxes for counts as absent, so merge the entries of an image",
    )


class Reader:
    """Reads one scanned `coco` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._tables = CocoTables(inputs.annotation, inputs.work)
        self._form = box_form(inputs.options, "xywh")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields = self._tables.image_entry(record_no)
        with naming(fields):
            return self._record(record_no, fields)

    def _record(self, record_no: int, fields: Mapping[str, Any]) -> Record:
        regions = []
        for xywh, category, flags in self._tables.boxes(record_no):
            if flags & EMPTY:
                continue
            if flags & NO_CATEGORY:
                raise self._tables.fault(record_no, NO_CATEGORY)
            phrase = self._tables.names[category]
            regions.append(Region(phrase=phrase, box_xyxy_px=self._form.corners(xywh), crowd=bool(flags & CROWD)))
        present = dict.fromkeys(region.phrase for region in regions)
        return Record(
            record_no=record_no,
            image_path=image_path_of(fields),
            width_px=side_field(fields, "width"),
            height_px=side_field(fields, "height"),
            units_per_side=self._form.units_per_side,
            regions=tuple(regions),
            absent_phrases=self._named(fields, "neg_category_ids"),
            only_these_absent="neg_category_ids" in fields,
            incomplete_phrases=self._named(fields, "not_exhaustive_category_ids"),
            never_absent_phrases=tuple(kind for name in present for kind in self._tables.kinds_of.get(name, ())),
            image_elsewhere=image_elsewhere_of(fields),
        )

    def _named(self, fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
        """Names of the categories that LVIS lists in an image's entry (absent, or not exhaustively annotated)."""
        if key not in fields:
            return ()
        names = []
        for category_id in list_field(fields, key):
            if id_of(category_id) not in self._tables.name_of:
                raise Rejected("bad_record", f"{key}: {short(category_id)} is not in categories")
            names.append(self._tables.name_of[id_of(category_id)])
        return tuple(names)
