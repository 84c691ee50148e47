"""Files of YOLO, VOC, labelme and Open Images spoilt in thousands of ways: an error, rejected images, or boxes that are
right; nothing else.

The right boxes come from other parsers than ours and plain Python: `minidom`, `json`, `csv`, and lines split at blanks.
"""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

import pytest
from PIL import Image

from griffon_prep.readers import annotation_in
from griffon_shards.grammar import parse_answer

from . import mutations as m
from .folder_files import CAT, DOG, SIZE_PX, labelme, shape, voc, voc_object
from .test_openimages import BOXES, CLASSES, LABELS

CASES = int(os.environ.get("FOLDER_CASES", "150"))
"""Cases of each format; by hand, 2,000 are tried with FOLDER_CASES=2000."""

Corners = tuple[float, float, float, float]
Right = dict[str, list[tuple[str, Corners]] | None]
"""By image, its boxes as fractions of its sides; None if it may not become a sample."""

EMU = "emu"
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
AMISS = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, ExpatError)
LABEL = "0 0.5 0.5 0.25 0.5\n1 0.1 0.2 0.3 0.4 0.05 0.9\n0 0.25 0.75 0.5 0.25\n"

SETS: dict[str, dict[str, bytes]] = {
    "yolo": {
        "data.yaml": b"path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n  2: emu\n",
        "labels/a.txt": LABEL.encode(),
        "labels/b.txt": b"2 0.3 0.4 0.2 0.2\r\n",
        "labels/c.txt": b"",
    },
    "voc": {
        "xml/a.xml": voc(voc_object(CAT, (11, 21, 40, 60)), voc_object(DOG, (1, 1, 200, 100))).encode(),
        "xml/b.xml": voc(voc_object(EMU, ("5.5", 6, 77, 88), "<difficult>1</difficult>"), filename="b.jpg").encode(),
        "xml/c.xml": voc(filename="c.jpg", size="").encode(),
    },
    "labelme": {
        "json/a.json": json.dumps(
            labelme(shape(CAT, [[40, 20], [10, 60]]), shape(DOG, [[25, 20], [40, 40], [25, 60]], "polygon"))
        ).encode(),
        "json/b.json": json.dumps(
            labelme(
                shape(EMU, [[50, 50], [53, 54]], "circle"), imagePath="..\\b.jpg", imageWidth=None, imageHeight=None
            ),
            indent=1,
        ).encode(),
        "json/c.json": json.dumps(labelme(imagePath="c.jpg")).encode(),
    },
    "openimages": {
        "train-annotations-bbox.csv": BOXES.replace("0a01", "a").replace("f002", "b").encode(),
        "class-descriptions-boxable.csv": CLASSES.encode(),
        "train-annotations-human-imagelabels-boxable.csv": LABELS.replace("0a01", "a").replace("0b00", "b").encode(),
    },
}
ANNOTATIONS = {"yolo": ".", "voc": "xml", "labelme": "json", "openimages": "."}


def number(text: str) -> float:
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def fractions(*values: float) -> None:
    if not all(-0.01 <= value <= 1.01 for value in values):
        raise ValueError(values)


def yolo(files: Mapping[str, bytes]) -> Right:
    names = dict(re.findall(r"^  ([0-9]+): +(\S.*?)[ \r]*$", files["data.yaml"].decode(), re.MULTILINE))
    right: Right = {}
    for image in "abc":
        right[image] = None
        with suppress(*AMISS):
            boxes = []
            for line in files[f"labels/{image}.txt"].decode("utf-8-sig").split("\n"):
                if not line.strip():
                    continue
                fields = line.split()
                if "," in line:
                    fields = [field.strip() for field in line.split(",")]
                    if len(fields) != 5:
                        raise ValueError(line)
                name = names[str(int(number(fields[0])))]
                if number(fields[0]) % 1:
                    raise ValueError(line)
                values = list(map(number, fields[1:]))
                fractions(*values)
                if len(values) == 4:
                    x, y, width, height = values
                    boxes.append((name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)))
                elif len(values) % 2 == 0 and len(values) > 4:
                    xs, ys = values[::2], values[1::2]
                    boxes.append((name, (min(xs), min(ys), max(xs), max(ys))))
                else:
                    raise ValueError(line)
            right[image] = boxes
    return right


def only_text(node: Any, tag: str) -> str:  # noqa: ANN401 - minidom has no types
    (child,) = [item for item in node.childNodes if item.nodeName == tag]
    if any(item.nodeType == item.ELEMENT_NODE for item in child.childNodes):
        raise ValueError(tag)
    texts = [item.data for item in child.childNodes if item.nodeType in (item.TEXT_NODE, item.CDATA_SECTION_NODE)]
    return "".join(texts).strip()


def of_voc(data: bytes) -> list[tuple[str, Corners]]:
    if b"<!DOCTYPE" in data:
        raise ValueError("a document type")
    root = minidom.parseString(data).documentElement
    if root is None or root.tagName != "annotation":
        raise ValueError(root)
    width, height = map(float, SIZE_PX)
    sizes = [item for item in root.childNodes if item.nodeName == "size"]
    if sizes:
        (size,) = sizes
        width, height = number(only_text(size, "width")), number(only_text(size, "height"))
        if width < 0 or height < 0 or width % 1 or height % 1:
            raise ValueError(size)
        if not width or not height:
            width, height = map(float, SIZE_PX)
    boxes = []
    for item in [item for item in root.childNodes if item.nodeName == "object"]:
        (box,) = [child for child in item.childNodes if child.nodeName == "bndbox"]
        xmin, ymin, xmax, ymax = (number(only_text(box, edge)) for edge in ("xmin", "ymin", "xmax", "ymax"))
        name = only_text(item, "name")
        if not name:
            raise ValueError(item)
        if xmin > xmax or ymin > ymax:
            xmin, xmax = 1, -1  # inverted, whatever a pixel is
        boxes.append((name, ((xmin - 1) / width, (ymin - 1) / height, xmax / width, ymax / height)))
    return boxes


def voc_set(files: Mapping[str, bytes]) -> Right:
    right: Right = {}
    for image in "abc":
        right[image] = None
        with suppress(*AMISS):
            right[image] = of_voc(files[f"xml/{image}.xml"])
    return right


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError(pairs)
    return dict(pairs)


def real(value: Any) -> float:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(value)
    return float(value)


def words(value: Any) -> str:  # noqa: ANN401 - JSON
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value.strip()


def of_labelme(data: bytes) -> tuple[str, list[tuple[str, Corners]]]:
    fields = json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    width, height = fields.get("imageWidth"), fields.get("imageHeight")
    if width is None or height is None:
        width, height = SIZE_PX
    if real(width) <= 0 or real(height) <= 0 or width % 1 or height % 1:
        raise ValueError(width)
    objects: dict[object, tuple[str, list[Corners]]] = {}
    for index, drawn in enumerate(fields["shapes"]):
        label, kind = words(drawn["label"]), drawn.get("shape_type")
        if kind in ("point", "points", "line", "linestrip"):
            continue
        points = [(real(x), real(y)) for x, y in drawn["points"]]
        if kind == "circle" and len(points) == 2:
            (x, y), edge = points
            radius = math.dist(points[0], edge)
            points = [(x - radius, y - radius), (x + radius, y + radius)]
        elif not (kind == "rectangle" and len(points) in (2, 4)) and (kind not in (None, "polygon") or len(points) < 3):
            raise ValueError(kind)
        xs, ys = [x for x, _ in points], [y for _, y in points]
        group = drawn.get("group_id")
        key = index if group is None else (label, type(group), group)
        objects.setdefault(key, (label, []))[1].append((min(xs), min(ys), max(xs), max(ys)))
    boxes = []
    for label, parts in objects.values():
        x1, y1 = (min(part[i] for part in parts) / side for i, side in enumerate((width, height)))
        x2, y2 = (max(part[i + 2] for part in parts) / side for i, side in enumerate((width, height)))
        boxes.append((label, (x1, y1, x2, y2)))
    return words(fields["imagePath"]), boxes


def labelme_set(files: Mapping[str, bytes]) -> Right:
    """The image is the one that the file names, or else the one named like it."""
    right: Right = {}
    for stem in "abc":
        with suppress(*AMISS, RecursionError):
            path, boxes = of_labelme(files[f"json/{stem}.json"])
            file = re.split(r"[/\\]", path)[-1]
            image = file[0] if file in ("a.jpg", "b.jpg", "c.jpg") else stem
            # Two files may name one image: either may be right.
            right[image] = [*(right.get(image) or []), ("|", (0, 0, 0, 0)), *boxes]
    return right


def openimages(files: Mapping[str, bytes]) -> Right:
    boxes, classes, _ = files.values()
    names = {row[0].strip(): row[1].strip() for row in csv.reader(classes.decode().splitlines()) if len(row) == 2}
    right: Right = {}
    lines = [line for line in boxes.decode("utf-8-sig", "replace").split("\n") if line.strip()]
    for row in csv.DictReader([line.strip("\r") for line in lines]):
        image = (row.get("ImageID") or "").strip()
        right.setdefault(image, [])
        try:
            x1, y1, x2, y2 = (number(str(row[edge]).strip()) for edge in ("XMin", "YMin", "XMax", "YMax"))
            fractions(x1, y1, x2, y2)
            name, group = names[str(row["LabelName"]).strip()], str(row.get("IsGroupOf", "")).strip()
            if None in row or None in row.values() or group not in ("1", "0", "-1", ""):
                raise ValueError(row)
            if group != "1" and right[image] is not None:
                right[image].append((name, (x1, y1, x2, y2)))  # type: ignore[union-attr]
        except AMISS:
            right[image] = None
    return right


ORACLES: dict[str, Callable[[Mapping[str, bytes]], Right]] = {
    "yolo": yolo,
    "voc": voc_set,
    "labelme": labelme_set,
    "openimages": openimages,
}


def near(one: Corners, other: Corners) -> bool:
    clamped = [min(max(value, 0.0), 1.0) for value in other]
    return all(abs(a - b) <= 0.0005 + 1e-9 for a, b in zip(one, clamped, strict=True))


def usable(corners: Corners) -> bool:
    return bool(m.box_text(corners, 1, 1))


def is_right(written: list[tuple[str, Corners]], right: list[tuple[str, Corners]]) -> bool:
    """Whether each written box is a right one, and each right one that may be written is."""
    for name, box in written:
        if not any(name == other and near(box, corners) for other, corners in right):
            return False
    return all(
        any(name == other and near(box, corners) for name, box in written)
        for other, corners in right
        if usable(corners)
    )


def candidates(boxes: list[tuple[str, Corners]]) -> list[list[tuple[str, Corners]]]:
    """The boxes of an image, or those of each file that names it."""
    result: list[list[tuple[str, Corners]]] = [[]]
    for name, corners in boxes:
        if name == "|":
            result.append([])
        else:
            result[-1].append((name, corners))
    return result if len(result) == 1 else result[1:]


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    result = {}
    for stem in "abc":
        out = BytesIO()
        Image.new("RGB", SIZE_PX).save(out, "JPEG", comment=stem)
        result[stem] = out.getvalue()
    return result


def build(folder: Path, kind: str, files: Mapping[str, bytes], images: Mapping[str, bytes], random: Random) -> Any:  # noqa: ANN401
    root = folder / "images" if kind == "yolo" else folder
    written = {f"{root}/{stem}.jpg": data for stem, data in images.items()}
    written |= {f"{folder}/{name}": data for name, data in files.items()}
    for path, data in written.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    return m.made_from(folder, annotation_in(folder / ANNOTATIONS[kind]), "DET", random)


def check(kind: str, made: m.Made, files: Mapping[str, bytes], images: Mapping[str, bytes], case: int) -> None:
    right = ORACLES[kind](files)
    stem_of = {data: stem for stem, data in images.items()}
    for sample in made.samples:
        assert sample.image is not None
        stem = stem_of[sample.image]
        boxes = right.get(stem)
        assert boxes is not None, (case, files, stem)
        written = parse_answer(sample.turns[1].text, "DET", "text")
        assert any(is_right(written, candidate) for candidate in candidates(boxes)), (case, files, written, boxes)


@pytest.mark.parametrize("kind", SETS)
def test_the_files_as_they_should_be_give_all_their_boxes(
    tmp_path: Path, kind: str, images: Mapping[str, bytes]
) -> None:
    files = SETS[kind]
    made = build(tmp_path, kind, files, images, Random(0))
    assert isinstance(made, m.Made), made
    assert len(made.samples) == 2
    assert sum(len(boxes or []) for boxes in ORACLES[kind](files).values()) >= 3
    check(kind, made, files, images, 0)


@pytest.mark.parametrize("kind", SETS)
def test_no_spoilt_file_gives_a_wrong_box(tmp_path: Path, kind: str, images: Mapping[str, bytes]) -> None:
    with_samples = 0
    for case in range(CASES):
        random = Random(f"{kind} {case}")
        files = dict(SETS[kind])
        name = random.choice(list(files))
        for _ in range(random.choice([1, 1, 2, 3])):
            files[name] = m.spoilt_bytes(random, files[name] or b" ")
        if kind == "labelme" and random.random() < 0.5:
            value = m.spoilt_value(random, json.loads(SETS[kind][name]))
            files[name] = m.as_json(value, random)
        made = build(tmp_path, kind, files, images, random)
        if isinstance(made, str):
            continue
        if name != "data.yaml" and kind != "openimages":
            assert made.records == 3, (case, files)
        check(kind, made, files, images, case)
        with_samples += bool(made.samples)
    assert with_samples > CASES // 4
