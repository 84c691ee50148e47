"""The `refcoco` format: RefCOCO's pickles such as `refs(unc).p`, and gRefCOCO's `grefs(unc).json`.

Boxes, sizes and file names come from `instances.json` in the same folder. A record is one sentence of one reference.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import BoxForm, box_form
from griffon_prep.readers.coco_entries import image_elsewhere_of, image_path_of
from griffon_prep.readers.coco_file import NO_BOX, Boxes, Images, read_coco
from griffon_prep.readers.fields import (
    NO_ID,
    box_of,
    checked_id,
    id_of,
    list_field,
    short,
    side_field,
    text_field,
)
from griffon_prep.readers.jsonscan.records import JsonRecords, parse_placed, scan_json
from griffon_prep.readers.jsonscan.spans import element_spans
from griffon_prep.readers.restricted_pickle import is_pickle, read_plain_pickle
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import whole_file
from griffon_shards.support.tables import counted
from griffon_shards.types import BoxXYXY

TASKS = ("REG", "VG")
OPTIONS = ("split", "rounds", "boxes")
COMPANIONS = ("instances.json",)
EXAMPLES = {
    "refs(unc).p": """\
[{"ref_id": 3, "ann_id": 1, "image_id": 7, "category_id": 17, "split": "train", "sent_ids": [5],
  "file_name": "COCO_train2014_000000000007_1.jpg",
  "sentences": [{"sent_id": 5, "raw": "The left cat", "sent": "left cat", "tokens": ["left", "cat"]}]}]""",
    "grefs(unc).json": """\
[{"ref_id": 3, "ann_id": [1, 2], "image_id": 7, "category_id": [17], "split": "train", "no_target": false,
  "sentences": [{"sent_id": 5, "raw": "both cats", "sent": "both cats", "exist": true}]},
 {"ref_id": 4, "ann_id": [-1], "image_id": 7, "category_id": [-1], "split": "train", "no_target": true,
  "sentences": [{"sent_id": 6, "raw": "the zebra", "sent": "the zebra", "exist": false}]}]""",
    "instances.json": """\
{"images": [{"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 480, "width": 640}],
 "annotations": [{"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 20, 100, 200], "iscrowd": 0},
  {"id": 2, "image_id": 7, "category_id": 17, "bbox": [300, 40.5, 120, 159.5], "iscrowd": 0}],
 "categories": [{"id": 17, "name": "cat"}]}""",
}
_DEFAULT_SPLIT = "train"
_RECORDS, _TABLE = "records.jsonl", "spans.bin"
_ABSENT = -1
_LOOK_AT_BYTES = 512  # enough to recognise a pickle


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    return head.member == "pickle" or (not head.member and {"sentences", "ann_id"} <= head.element.keys())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ref:
    """One reference: its boxes and the phrases that describe them.

    Attributes:
        image_id: as returned by `id_of`, like all ids here.
        ann_ids: annotation ids of the boxes; empty if the phrases describe nothing in the image.
        phrases: one record each.
        written: the ids as written in the file.
    """

    image_id: int
    ann_ids: tuple[int, ...]
    phrases: tuple[str, ...]
    written: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instances:
    """The entries of `instances.json` that the references use.

    Attributes:
        images: entries of `images`, by id.
        boxes: image id and x, y, width, height, by annotation id; None for a bbox that is not four numbers.
    """

    images: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    boxes: dict[int, tuple[int, BoxXYXY | None]] = field(default_factory=dict)


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the records of the split, with their boxes, into the work folder."""
    split = inputs.options.get("split", _DEFAULT_SPLIT)
    refs, without_sentence = _refs_of_split(inputs.annotation, split)
    usable = [ref for ref in refs if isinstance(ref, _Ref)]
    instances = _look_up(
        inputs.companions["instances.json"],
        {ref.image_id for ref in usable},
        {ann_id for ref in usable for ann_id in ref.ann_ids},
    )
    round_keys = RoundKeys(inputs.task)
    form = box_form(inputs.options, "xywh")
    skipped = 0
    with whole_file(inputs.work / _RECORDS) as out:
        for ref in refs:
            if isinstance(ref, _Ref) and inputs.task == "REG" and len(ref.ann_ids) != 1:
                skipped += len(ref.phrases)
                continue
            for line, phrase, boxes in _lines(ref, instances, form):
                image = str(ref.image_id if isinstance(ref, _Ref) else line)
                round_keys.add(image_key(image.encode()), phrase, boxes)
                out.write(line)
    notes = []
    if without_sentence:
        notes.append(f"{counted(without_sentence, 'reference')} of the split skipped for lack of a sentence")
    if skipped:
        notes.append(f"{counted(skipped, 'expression')} of the split skipped: REG needs exactly one box")
    return Scan(
        records=scan_json(inputs.work / _RECORDS, inputs.work / _TABLE, None),
        round_keys=round_keys,
        notes=tuple(notes),
    )


def _refs_of_split(path: Path, split: str) -> tuple[list[_Ref | Rejected], int]:
    """Return the references of a split or their rejections, and the number without a sentence (gRefCOCO has some)."""
    refs: list[_Ref | Rejected] = []
    splits = set()
    without_sentence = 0
    for value in _values(path):
        try:
            if isinstance(value, Rejected):
                raise value
            if not isinstance(value, dict):
                raise Rejected("bad_record", f"expected a reference, got {short(value)}")
            splits.add(name := text_field(value, "split"))
            if name == split and value.get("sentences") == []:
                without_sentence += 1
            elif name == split:
                refs.append(_ref(value))
        except Rejected as rejected:
            refs.append(rejected)
    if split not in splits:
        present = ", ".join(sorted(splits)) or "none"
        raise SettingsError(f"{path}: has no references of split={split}; the splits in it are {present}")
    return refs, without_sentence


def _values(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        if not is_pickle(file.read(_LOOK_AT_BYTES)):
            file.seek(0)
            ref_nos = count()
            for spans in element_spans(file, str(path)):
                for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
                    what = f"reference {next(ref_nos)} (from 0)"
                    try:
                        yield parse_placed(text, spans.place, start, str(path), what)
                    except Rejected as rejected:
                        yield rejected
            return
    content = read_plain_pickle(path)
    if not isinstance(content, list):
        raise DataError(f"{path}: expected a pickled list of references, got {type(content).__name__}")
    yield from content


def _ref(fields: Mapping[str, Any]) -> _Ref:
    given = fields.get("ann_id")
    given_ids = given if isinstance(given, list) else [given]
    ann_ids = tuple(map(id_of, given_ids))
    absent = fields.get("no_target") is True
    if absent != (ann_ids in ((), (_ABSENT,))) or NO_ID in ann_ids:
        raise Rejected("bad_record", f"ann_id: expected annotation ids, or [-1] with no_target, got {short(given)}")
    image_id = checked_id(fields, "image_id")
    return _Ref(
        image_id=image_id,
        ann_ids=() if absent else ann_ids,
        phrases=tuple(map(_phrase, list_field(fields, "sentences"))),
        written={id_of(value): short(value) for value in (fields["image_id"], *given_ids)},
    )


def _phrase(sentence: object) -> str:
    """Return a sentence as the benchmarks have it (`sent`), or else as it was typed (`raw`)."""
    if not isinstance(sentence, dict):
        raise Rejected("bad_record", f"sentences: expected objects, got {short(sentence)}")
    phrase = text_field(sentence, "sent" if sentence.get("sent") else "raw")
    if phrase != phrase.encode("utf-8", "replace").decode():
        raise Rejected("bad_record", f"sentences: {short(phrase)} is not UTF-8")  # from a pickle of Python 2
    return phrase


def _look_up(path: Path, image_ids: set[int], ann_ids: set[int]) -> _Instances:
    instances = _Instances()
    wanted = np.array(sorted(ann_ids), np.int64)
    for part in read_coco(path):
        if isinstance(part, Images):
            for image_id, value in zip(part.ids.tolist(), part.values, strict=True):
                if image_id in image_ids and instances.images.setdefault(image_id, value) is not value:
                    raise DataError(f"{path}: two entries of images have the same id {image_id}; remove the wrong one")
        elif isinstance(part, Boxes):
            rows = part.rows[np.isin(part.rows["id"], wanted)]
            columns = (rows[name].tolist() for name in ("id", "image_id", "xywh", "flags"))
            for ann_id, image_id, xywh, flags in zip(*columns, strict=True):
                if ann_id in instances.boxes:
                    raise DataError(f"{path}: two annotations have the same id {ann_id}; remove the wrong one")
                instances.boxes[ann_id] = (image_id, None if flags & NO_BOX else tuple(xywh))
    return instances


def _lines(ref: _Ref | Rejected, instances: _Instances, form: BoxForm) -> Iterator[tuple[bytes, str, list[BoxXYXY]]]:
    """Yield the records of a reference as lines of JSON, each with its phrase and its boxes.

    A reference that cannot be used is one line with the reason.
    """
    try:
        if isinstance(ref, Rejected):
            raise ref
        image = instances.images.get(ref.image_id)
        if image is None:
            raise Rejected("bad_record", f"image_id: {ref.written[ref.image_id]} is not in instances.json")
        sides = {name: side_field(image, name) for name in ("width", "height")}
        head = {"file_name": image_path_of(image), "elsewhere": image_elsewhere_of(image), **sides}
        boxes = [_box(ann_id, ref, instances, form) for ann_id in ref.ann_ids]
        # `json`, not `orjson`, because it can write NaN.
        for phrase in ref.phrases:
            yield json.dumps({**head, "phrase": phrase, "boxes": boxes}).encode() + b"\n", phrase, boxes
    except Rejected as rejected:
        detail = rejected.detail.encode("utf-8", "replace").decode()
        line = json.dumps({"reason": rejected.reason, "rejected": detail})
        yield line.encode() + b"\n", line, []


def _box(ann_id: int, ref: _Ref, instances: _Instances, form: BoxForm) -> BoxXYXY:
    written = ref.written[ann_id]
    if ann_id not in instances.boxes:
        raise Rejected("bad_record", f"ann_id: {written} is not in instances.json")
    of_image, xywh = instances.boxes[ann_id]
    if xywh is None:
        raise Rejected("bad_record", f"ann_id: {written} has no bbox of four numbers in instances.json")
    if of_image != ref.image_id:
        image_id = ref.written[ref.image_id]
        raise Rejected("bad_record", f"ann_id: {written} belongs to another image than image_id {image_id}")
    return form.corners(xywh)


class Reader:
    """Reads one scanned `refcoco` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.work / _RECORDS, inputs.work / _TABLE)
        self._form = box_form(inputs.options, "xywh")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, _ = self._records[record_no]
        if "rejected" in fields:
            raise Rejected(fields["reason"], fields["rejected"])
        phrase = text_field(fields, "phrase")
        regions = tuple(Region(phrase=phrase, box_xyxy_px=box_of(box, "bbox")) for box in list_field(fields, "boxes"))
        return Record(
            record_no=record_no,
            image_path=image_path_of(fields),
            width_px=side_field(fields, "width"),
            height_px=side_field(fields, "height"),
            units_per_side=self._form.units_per_side,
            regions=regions,
            absent_phrases=() if regions else (phrase,),
            image_elsewhere=tuple(fields["elsewhere"]),
        )
