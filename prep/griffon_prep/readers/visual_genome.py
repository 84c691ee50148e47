"""The `visual_genome` format: `objects.json` for DET, `region_descriptions.json` for REG and VG; one element per image.

Sizes and file names come from `image_data.json` in the same folder.
"""

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import BoxForm, box_form
from griffon_prep.readers.coco_table_writer import find_ids
from griffon_prep.readers.fields import (
    NO_ID,
    PLAIN_ID,
    box_of,
    checked_id,
    id_of,
    list_field,
    short,
    side_field,
    text_field,
)
from griffon_prep.readers.jsonscan.records import JsonRecords, parse_object, scan_json
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import write_whole
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

TASKS = ("DET", "REG", "VG")
OPTIONS = ("rounds", "boxes")
COMPANIONS = ("image_data.json",)
EXAMPLES = {
    "objects.json": """\
[{"image_id": 1, "objects": [
  {"object_id": 5, "x": 10, "y": 20, "w": 100, "h": 200, "names": ["cat"], "synsets": ["cat.n.01"]}]}]""",
    "region_descriptions.json": """\
[{"id": 1, "regions": [
  {"region_id": 9, "image_id": 1, "x": 10, "y": 20, "width": 100, "height": 200, "phrase": "a cat on the left"}]}]""",
    "image_data.json": """\
[{"image_id": 1, "width": 640, "height": 480, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"}]""",
}
_TABLE, _IMAGES, _IMAGE_IDS = "spans.bin", "images.bin", "image_ids.bin"
_REGION_BOX = ("x", "y", "width", "height")
_FOLDERS = ("VG_100K", "VG_100K_2")
_KEY_MASK = (1 << 64) - 1


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    element = head.element
    if head.member or not {"id", "image_id"} & element.keys():  # a CCMD line without image_path has objects too
        return False
    return "regions" in element or ("objects" in element and "image_path" not in element)


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the tables of records and of images into the work folder; for DET, also collect the category names."""
    _scan_images(inputs)
    collector = _Collector(inputs.task)
    records = scan_json(inputs.annotation, inputs.work / _TABLE, collector)
    if not collector.useful:
        needed = "objects.json" if inputs.task == "DET" else "region_descriptions.json"
        raise SettingsError(f"{inputs.annotation}: no element has {collector.key}; {inputs.task} needs {needed}")
    return Scan(
        records=records,
        vocabulary=tuple(sorted(collector.names)),
        round_keys=collector.round_keys if collector.round_keys else None,
    )


def _scan_images(inputs: AnnotationFiles) -> None:
    """Write the spans of `image_data.json`, and its ids, sorted, with the index of each element."""
    ids = array("q")

    def collect(text: bytes) -> int:
        try:
            ids.append(_image_id(parse_object(text)))
        except Rejected:
            ids.append(NO_ID)
        return 1

    image_data = inputs.companions["image_data.json"]
    scan_json(image_data, inputs.work / _IMAGES, collect)
    image_ids = np.array(ids, np.int64)
    order = np.argsort(image_ids, kind="stable")
    known = image_ids[order]
    if (same := known[1:][(known[1:] == known[:-1]) & (known[1:] != NO_ID)]).size:
        shown = f" {same[0]}" if same[0] > -PLAIN_ID else ""
        raise DataError(f"{image_data}: two entries have the same image_id{shown}; remove the wrong one")
    write_whole(inputs.work / _IMAGE_IDS, np.stack([known, order]).astype("<i8").tobytes())


class _Collector:
    """Called with every element during the scan: counts its records, and collects names or keys."""

    def __init__(self, task: str) -> None:
        self._task = task
        self.key = "objects" if task == "DET" else "regions"
        self.names: set[str] = set()
        self.round_keys = RoundKeys(task)
        self.useful = False

    def __call__(self, text: bytes) -> int:
        try:
            fields = parse_object(text)
            items = list_field(fields, self.key)
            self.useful = True
        except Rejected:
            fields, items = {}, [None]  # one record, which is rejected when read
        if self._task == "DET":
            self.names.update(name for name in map(_name_or_blank, items) if name and IMAGE_TOKEN not in name)
            return 1
        groups = [[item] for item in items] if self._task == "REG" else list(_by_phrase(items).values())
        image_id = _image_id(fields)
        image = image_key(text) if image_id == NO_ID else image_id & _KEY_MASK
        for group in groups:
            regions = [item for item in group if isinstance(item, dict)]
            boxes = [[region.get(name) for name in _REGION_BOX] for region in regions]
            self.round_keys.add(image, regions[0].get("phrase") if regions else None, boxes)
        return len(groups)


class Reader:
    """Reads one scanned `visual_genome` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.annotation, inputs.work / _TABLE)
        self._images = JsonRecords(inputs.companions["image_data.json"], inputs.work / _IMAGES)
        ids = np.fromfile(inputs.work / _IMAGE_IDS, "<i8").reshape(2, -1)
        self._known, self._order = ids[0], ids[1]
        self._task = inputs.task
        self._form = box_form(inputs.options, "xywh")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, part = self._records[record_no]
        image = self._image(fields)
        *folders, name = text_field(image, "url").split("/")[-2:]
        return Record(
            record_no=record_no,
            image_path="/".join([*filter(None, folders), name]),
            width_px=side_field(image, "width"),
            height_px=side_field(image, "height"),
            units_per_side=self._form.units_per_side,
            regions=self._regions(fields, part),
            # The two archives are often extracted into one folder.
            image_elsewhere=tuple(f"{folder}/{name}" for folder in _FOLDERS if folder not in folders),
        )

    def _image(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        name = _id_field(fields)
        index, present = find_ids(self._known, np.array([checked_id(fields, name)]))
        if not present[0]:
            raise Rejected("bad_record", f"{name}: {short(fields[name])} is not in image_data.json")
        return self._images[int(self._order[index[0]])][0]

    def _regions(self, fields: Mapping[str, Any], part: int) -> tuple[Region, ...]:
        if self._task == "DET":
            return tuple(_object(item, self._form) for item in list_field(fields, "objects"))
        items = list_field(fields, "regions")
        chosen = [items[part]] if self._task == "REG" else list(_by_phrase(items).values())[part]
        return tuple(_region(item, self._form) for item in chosen)


def _id_field(fields: Mapping[str, Any]) -> str:
    return "id" if "id" in fields and "image_id" not in fields else "image_id"


def _image_id(fields: Mapping[str, Any]) -> int:
    return id_of(fields.get(_id_field(fields)))


def _object(item: object, form: BoxForm) -> Region:
    name = _name_or_blank(item)
    if not isinstance(item, dict) or not name:
        raise Rejected("bad_record", f"objects: expected names with text as the first name, got {short(item)}")
    return Region(phrase=name, box_xyxy_px=_box(item, ("x", "y", "w", "h"), form))


def _name_or_blank(item: object) -> str:
    """Return the first name of an object, in lower case and without surrounding whitespace; `""` if there is none."""
    names = item.get("names") if isinstance(item, dict) else None
    first = names[0] if isinstance(names, list) and names else None
    return first.strip().lower() if isinstance(first, str) else ""


def _region(item: object, form: BoxForm) -> Region:
    if not isinstance(item, dict):
        raise Rejected("bad_record", f"regions: expected objects, got {short(item)}")
    return Region(phrase=text_field(item, "phrase"), box_xyxy_px=_box(item, _REGION_BOX, form))


def _by_phrase(items: list[Any]) -> dict[str, list[Any]]:
    """Group regions by phrase, in order of first appearance; those without a phrase are under `""`."""
    groups: dict[str, list[Any]] = {}
    for item in items:
        phrase = item.get("phrase") if isinstance(item, dict) else None
        groups.setdefault(phrase.strip() if isinstance(phrase, str) else "", []).append(item)
    return groups


def _box(item: Mapping[str, Any], names: tuple[str, str, str, str], form: BoxForm) -> BoxXYXY:
    return form.corners(box_of([item.get(name) for name in names], ", ".join(names)))
