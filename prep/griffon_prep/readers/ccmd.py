"""The `ccmd` format: CCMD-8M's JSONL, one image or expression per line, boxes as x1, y1, x2, y2 in pixels."""

from collections.abc import Mapping
from typing import Any

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import BoxForm, box_form
from griffon_prep.readers.fields import box_of, list_field, short, side_field, text_field
from griffon_prep.readers.jsonscan.records import JsonRecords, parse_json, scan_json
from griffon_prep.readers.rounds import RoundKeys, image_key
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.tables import counted
from griffon_shards.types import IMAGE_TOKEN

TASKS = ("DET", "RANDDET", "REG", "VG", "VISJ")
OPTIONS = ("rounds", "boxes")
COMPANIONS = ()
EXAMPLES = {
    "detection.jsonl": '{"image_path": "a.jpg", "height": 480, "width": 640, "objects": ['
    '{"category_name": "cat", "bboxes": [[10, 20, 110, 220]]}, {"category_name": "dog", "bboxes": []}]}',
    "expressions.jsonl": '{"image_path": "a.jpg", "height": 480, "width": 640, '
    '"expression": "the left cat", "bboxes": [[10, 20, 110, 220]]}',
    "expressions in lists, for REG.jsonl": '{"image_path": "a.jpg", "height": 480, "width": 640, '
    '"expression": ["the left cat", "the right cat"], "bboxes": [[10, 20, 110, 220], [300, 40.5, 420, 200]]}',
}
_TABLE = "spans.bin"


def recognises(head: Head) -> bool:
    """Whether a file with this beginning has this format."""
    element = head.element
    return not head.member and "image_path" in element and ("objects" in element or "expression" in element)


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the record table into the work folder; for DET, also collect the category names."""
    names: set[str] = set()
    round_keys = RoundKeys(inputs.task)
    collect = {
        "DET": lambda text: _collect_names(text, names),
        "REG": lambda text: _collect_keys(text, round_keys, many=False),
        "VG": lambda text: _collect_keys(text, round_keys, many=True),
    }.get(inputs.task)
    records = scan_json(inputs.annotation, inputs.work / _TABLE, collect)
    return Scan(
        records=records,
        vocabulary=tuple(sorted(names)),
        round_keys=round_keys if round_keys else None,
    )


class Reader:
    """Reads one scanned `ccmd` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._records = JsonRecords(inputs.annotation, inputs.work / _TABLE)
        self._task = inputs.task
        self._form = box_form(inputs.options, "xyxy")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, part = self._records[record_no]
        regions, absent = (
            _expression_regions(fields, part, self._form, many=self._task == "VG")
            if self._task in ("REG", "VG")
            else _object_regions(fields, self._form)
        )
        return Record(
            record_no=record_no,
            image_path=text_field(fields, "image_path"),
            width_px=side_field(fields, "width"),
            height_px=side_field(fields, "height"),
            units_per_side=self._form.units_per_side,
            regions=regions,
            absent_phrases=absent,
        )


def _object_regions(fields: Mapping[str, Any], form: BoxForm) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Regions and absent categories for DET, RANDDET and VISJ.

    A category without boxes is absent, unless the record lists it a second time with boxes.
    """
    regions: list[Region] = []
    without: list[str] = []
    for item in list_field(fields, "objects"):
        if not isinstance(item, dict):
            raise Rejected("bad_record", f"objects: expected objects, got {short(item)}")
        name = text_field(item, "category_name")
        boxes = list_field(item, "bboxes")
        regions += [Region(phrase=name, box_xyxy_px=form.corners(box_of(box, "bboxes"))) for box in boxes]
        if not boxes:
            without.append(name)
    present = {region.phrase for region in regions}
    return tuple(regions), tuple(name for name in dict.fromkeys(without) if name not in present)


def _expression_regions(
    fields: Mapping[str, Any], part: int, form: BoxForm, *, many: bool
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Regions and absent expressions for REG (one box) and VG (any number of boxes; none if it is absent)."""
    boxes = list_field(fields, "bboxes")
    expression = fields.get("expression")
    if isinstance(expression, list):
        if many or len(expression) != len(boxes):
            raise Rejected(
                "bad_record",
                f"expression: expected one text, got a list of {len(expression)}; VG takes one expression per record"
                if many
                else f"expression: expected one for each box, got {counted(len(expression), 'expression')} and "
                f"{counted(len(boxes), 'box', 'boxes')}",
            )
        if not expression:
            raise Rejected("bad_record", "expression: the list is empty")
        phrase, boxes = text_field({"expression": expression[part]}, "expression"), [boxes[part]]
    else:
        phrase = text_field(fields, "expression")
    boxes = _boxes(boxes)
    if not many and len(boxes) != 1:
        raise Rejected("bad_record", f"bboxes: REG needs exactly one box, got {len(boxes)}")
    regions = tuple(Region(phrase=phrase, box_xyxy_px=form.corners(box_of(box, "bboxes"))) for box in boxes)
    return regions, () if regions else (phrase,)


def _collect_keys(text: bytes, round_keys: RoundKeys, *, many: bool) -> int:
    """Add the keys of every record in a line and return their number.

    A line is one record, or for REG one record per expression if it has a list of expressions.
    """
    try:
        fields = parse_json(text)
    except Rejected:
        fields = {}
    path, expression, given = (
        map(fields.get, ("image_path", "expression", "bboxes")) if isinstance(fields, dict) else (None,) * 3
    )
    # The size is part of the key: a record that states a wrong size must not share a sample with correct records.
    name = (
        f"{path} {short(fields.get('width'))} {short(fields.get('height'))}".encode() if isinstance(path, str) else text
    )
    image = image_key(name)
    boxes: list[Any] = given if isinstance(given, list) else []
    if not many and isinstance(expression, list) and 0 < len(expression) == len(boxes):
        for phrase, box in zip(expression, boxes, strict=True):
            round_keys.add(image, phrase, _boxes([box]))
        return len(expression)
    round_keys.add(image, expression, _boxes(boxes))
    return 1


def _boxes(boxes: list[Any]) -> list[Any]:
    """Return a list of boxes, which for a single box may be written as the box itself, or as a list of its own."""
    if len(boxes) == 4 and not any(isinstance(box, list) for box in boxes):
        return [boxes]
    if len(boxes) == 1 and isinstance(boxes[0], list) and len(boxes[0]) == 1:
        inner: list[Any] = boxes[0]
        return inner
    return boxes


def _collect_names(text: bytes, names: set[str]) -> int:
    """Add the category names of a DET line to `names`; returns 1, because a line is one record."""
    try:
        fields = parse_json(text)
    except Rejected:
        return 1
    objects = fields.get("objects") if isinstance(fields, dict) else None
    for item in objects if isinstance(objects, list) else ():
        name = item.get("category_name") if isinstance(item, dict) else None
        if isinstance(name, str) and name.strip() and IMAGE_TOKEN not in name:  # a question has one <image> only
            names.add(name.strip())
    return 1
