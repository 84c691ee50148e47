"""The `labelme` format: a folder of labelme's JSON files, one per image, of which every shape becomes its bounds.

`imageData`, the image that a file may contain, is not used: labelme encodes it again, turned by its EXIF orientation.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.box_form import own_units
from griffon_prep.readers.fields import is_number, list_field, short, side_field, text_field
from griffon_prep.readers.folders import Names, files_below, packed_notes, write_names
from griffon_prep.readers.jsonscan.damage import RepeatedKey
from griffon_prep.readers.jsonscan.records import parse_object
from griffon_prep.records import Record, Region, Rejected
from griffon_shards.support.tables import counted
from griffon_shards.types import IMAGE_TOKEN, BoxXYXY

TASKS = ("DET", "RANDDET", "VISJ")
OPTIONS = ("boxes",)
COMPANIONS = ()
EXAMPLES = {
    "a.json": """\
{"version": "5.4.1", "flags": {}, "imagePath": "..\\\\images\\\\a.jpg", "imageHeight": 480, "imageWidth": 640,
 "imageData": null, "shapes": [
  {"label": "cat", "shape_type": "rectangle", "points": [[110, 220], [10, 20]], "group_id": null, "flags": {}},
  {"label": "dog", "shape_type": "polygon", "points": [[300, 50], [420, 40.5], [410, 200]], "group_id": null,
   "flags": {}}]}""",
}
_TABLE = "names.bin"
_ENDINGS = frozenset({".json"})
_WITHOUT_EXTENT = ("point", "points", "line", "linestrip")
_LEAST_POINTS = {"polygon": 3, "oriented_rectangle": 4, "rotation": 4, "quadrilateral": 4}


def recognises(head: Head) -> bool:
    """Whether a folder with this first file has this format."""
    return head.member == "folder of JSON" and {"shapes", "imagePath"} <= head.element.keys()


def scan(inputs: AnnotationFiles) -> Scan:
    """Write the paths of the JSON files into the work folder, and collect the category names."""
    own_units(inputs.options, "labelme")  # an order is refused before anything is read
    files = files_below(inputs.annotation, _ENDINGS)
    write_names(inputs.work / _TABLE, files)
    names: set[str] = set()
    skipped = 0
    for file in files:
        try:
            regions, others = _regions(_parse(inputs.annotation / file))
        except Rejected:
            continue
        names.update(name for name in (*(region.phrase for region in regions), *others) if IMAGE_TOKEN not in name)
        skipped += len(others)
    notes = packed_notes(inputs.annotation, _ENDINGS)
    if skipped:
        shapes = counted(skipped, "point or line has", "points and lines have")
        notes += (f"{shapes} no box; the category of such a shape is not called absent from its image",)
    return Scan(records=len(files), vocabulary=tuple(sorted(names)), notes=notes)


class Reader:
    """Reads one scanned `labelme` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._folder = inputs.annotation
        self._names = Names(inputs.work / _TABLE)
        self._units = own_units(inputs.options, "labelme")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        file = self._names[record_no]
        try:
            fields = _parse(self._folder / file)
            regions, others = _regions(fields)
            unknown = fields.get("imageWidth") is None or fields.get("imageHeight") is None
            stated = text_field(fields, "imagePath")
            image_path, image_file = _image_path(file, stated), self._image_file(file, stated)
            return Record(
                record_no=record_no,
                image_path=image_path,
                width_px=0 if unknown else side_field(fields, "imageWidth"),
                height_px=0 if unknown else side_field(fields, "imageHeight"),
                units_per_side=self._units,
                regions=regions,
                never_absent_phrases=others,
                tool_turns_images=True,
                image_elsewhere=(posixpath.splitext(file)[0] + posixpath.splitext(image_path)[1],),
                image_file=image_file,
            )
        except Rejected as rejected:
            raise Rejected(rejected.reason, f"{file}: {rejected.detail}") from None

    def _image_file(self, file: str, image_path: str) -> str | None:
        """Return the path that a file states relative to itself, if the image is there: it may have been moved."""
        path = posixpath.join(self._folder.absolute(), posixpath.dirname(file), image_path.replace("\\", "/"))
        return path if posixpath.isfile(path) else None


def _parse(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except RepeatedKey as repeated:
        raise Rejected("bad_record", f"an object has the key {repeated} twice") from None


def _image_path(file: str, image_path: str) -> str:
    """Return the path of an image, which a file states relative to itself, without the folders that lead out."""
    path = image_path.replace("\\", "/")
    if path.startswith("/") or path[1:3] == ":/":
        return path
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    return re.sub(r"^(?:\.\./)+", "", joined)


def _regions(fields: Mapping[str, Any]) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Return the boxes of the shapes, and the labels of those without extent.

    Shapes of one label and group are parts of one object, which has one box.
    """
    boxes: dict[tuple[str, object], BoxXYXY] = {}
    others = []
    for number, shape in enumerate(list_field(fields, "shapes")):
        if not isinstance(shape, dict):
            raise Rejected("bad_record", f"shapes: expected objects, got {short(shape)}")
        label, kind, group = text_field(shape, "label"), shape.get("shape_type"), shape.get("group_id")
        if kind in _WITHOUT_EXTENT:
            others.append(label)
            continue
        if isinstance(group, dict | list):
            raise Rejected("bad_record", f"group_id: expected a number or null, got {short(group)}")
        key = (label, f"shape {number}" if group is None else (type(group), group))
        boxes[key] = _around(boxes.get(key), _bounds(shape, "polygon" if kind is None else kind))
    regions = tuple(Region(phrase=label, box_xyxy_px=box) for (label, _), box in boxes.items())
    return regions, tuple(others)


def _around(one: BoxXYXY | None, other: BoxXYXY) -> BoxXYXY:
    if one is None:
        return other
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _bounds(shape: Mapping[str, Any], kind: object) -> BoxXYXY:
    """Return the smallest box around a shape."""
    points = [_point(point) for point in list_field(shape, "points")]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if kind == "circle" and len(points) == 2:  # its centre, and a point of its edge
        radius = ((xs[1] - xs[0]) ** 2 + (ys[1] - ys[0]) ** 2) ** 0.5
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    if kind == "mask" and len(points) == 2:  # its first and its last pixel
        return min(xs), min(ys), max(xs) + 1, max(ys) + 1
    if (kind == "rectangle" and len(points) in (2, 4)) or _is_outline(kind, points):
        return min(xs), min(ys), max(xs), max(ys)
    raise Rejected("bad_record", f"shape_type {short(kind)} with {len(points)} points is not supported")


def _is_outline(kind: object, points: Sequence[object]) -> bool:
    return isinstance(kind, str) and kind in _LEAST_POINTS and len(points) >= _LEAST_POINTS[kind]


def _point(point: object) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2 or not all(map(is_number, point)):
        raise Rejected("bad_record", f"points: expected two numbers, got {short(point)}")
    try:
        x, y = map(float, point)
    except OverflowError:
        raise Rejected("bad_record", f"points: a number in {short(point)} is too large") from None
    if not abs(x) < 1e9 or not abs(y) < 1e9:
        raise Rejected("bad_record", f"points: expected pixels, got {short(point)}")
    return x, y
