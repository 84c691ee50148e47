"""The `coco` format: Objects365, COCO, LVIS, V3Det; one picture a record, boxes as x, y, width, height in pixels."""

from collections.abc import Mapping
from typing import Any

from griffon_prep.readers.base import Head, Inputs, Scan
from griffon_prep.readers.coco_file import CROWD
from griffon_prep.readers.coco_tables import NO_CATEGORY, CocoTables, image_path_of, write_tables
from griffon_prep.readers.fields import corners_of, list_field, short, side_field
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.types import IMAGE_TOKEN

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ()
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
    """Whether a file that begins so is of this format."""
    return head.member in ("images", "annotations")  # MDETR's files, which are asked first, are of this make too


def scan(inputs: Inputs) -> Scan:
    """Write the tables of pictures and boxes into the work folder; the vocabulary is the file's list of categories."""
    found = write_tables(inputs.annotation, inputs.work)
    names = {name for name in found.names.values() if IMAGE_TOKEN not in name}
    return Scan(
        records=found.pictures,
        vocabulary=tuple(sorted(names)) if inputs.task in ("DET", "RANDDET") else (),
        notes=found.notes,
    )


class Reader:
    """Reads one scanned `coco` source."""

    def __init__(self, inputs: Inputs) -> None:
        self._tables = CocoTables(inputs.annotation, inputs.work)

    def read(self, record_no: int) -> Record:
        """The record of this number. Raises Rejected if it cannot be used."""
        fields = self._tables.picture(record_no)
        regions = []
        for xywh, category, flags in self._tables.boxes(record_no):
            if flags & NO_CATEGORY:
                raise Rejected("bad_record", "category_id: an annotation of the picture has none that the file names")
            phrase = self._tables.names[category]
            regions.append(Region(phrase=phrase, box_xyxy_px=corners_of(xywh), crowd=bool(flags & CROWD)))
        return Record(
            record_no=record_no,
            image_path=image_path_of(fields),
            width_px=side_field(fields, "width"),
            height_px=side_field(fields, "height"),
            regions=tuple(regions),
            absent_phrases=self._absent(fields),
            only_these_absent="neg_category_ids" in fields,
        )

    def _absent(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """LVIS looked for some categories in each picture only, and names those it did not find."""
        if "neg_category_ids" not in fields:
            return ()
        found = []
        for number in list_field(fields, "neg_category_ids"):
            if not isinstance(number, int) or number not in self._tables.name_of:
                raise Rejected("bad_record", f"neg_category_ids: {short(number)} is no category of the file")
            found.append(self._tables.name_of[number])
        return tuple(found)
