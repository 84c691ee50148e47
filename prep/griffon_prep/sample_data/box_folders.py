"""Boxes of a scene in the formats with a file for each image: YOLO, Pascal VOC and labelme; and as rows of Open Images.

The boxes and categories are those of `coco_writer`.
"""

from __future__ import annotations

import posixpath
from xml.sax.saxutils import escape

import orjson

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.coco_writer import CATEGORY_IDS, empty_scenes, image_id, shape_and_crowd_records
from griffon_prep.sample_data.scene import CATEGORIES, Box, Scene, absent_categories

_MOST_NEGATIVES = 8
_OPEN_IMAGES_SOURCE = "xclick"

DATA_YAML = "path: .\ntrain: images/train\nnames:\n" + "".join(
    f"  {number}: {category}\n" for number, category in enumerate(CATEGORIES)
)
BOXES_HEAD = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
LABELS_HEAD = "ImageID,Source,LabelName,Confidence\n"
_MIDS = {category: f"/m/0{number:03d}" for number, category in enumerate(CATEGORIES)}
CLASS_DESCRIPTIONS = "".join(f"{mid},{category}\n" for category, mid in _MIDS.items())


def shown_scenes(pictured: Scene) -> list[Scene]:
    """Return the scene, and the empty image after it, if any."""
    return [pictured, *empty_scenes(pictured)]


def annotation_name(pictured: Scene, ending: str) -> str:
    """Return the path of a scene's own annotation file."""
    return posixpath.splitext(pictured.image_path)[0] + ending


def yolo_label(pictured: Scene) -> str:
    """Return the lines of YOLO's label: a box or, of every third shape, an outline."""
    lines = []
    for index, shape in enumerate(pictured.shapes):
        x1, y1, x2, y2 = shape.box_xyxy_px
        width_px, height_px = pictured.width_px, pictured.height_px
        fractions = [(x1 + x2) / 2 / width_px, (y1 + y2) / 2 / height_px, (x2 - x1) / width_px, (y2 - y1) / height_px]
        if index % 3 == 1:
            points_px = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
            fractions = [side for x, y in points_px for side in (x / width_px, y / height_px)]
        lines.append(" ".join(map(str, [CATEGORIES.index(shape.category), *fractions])) + "\n")
    return "".join(lines)


def voc_annotation(pictured: Scene) -> str:
    """Return Pascal VOC's XML; a box is of its first and its last pixel, counted from 1."""
    objects = "".join(
        f"  <object>\n    <name>{escape(shape.category)}</name>\n    <truncated>0</truncated>\n"
        f"    <difficult>0</difficult>\n    {_bndbox(shape.box_xyxy_px)}\n  </object>\n"
        for shape in pictured.shapes
    )
    folder, _, name = pictured.image_path.rpartition("/")
    return (
        f"<annotation>\n  <folder>{escape(folder)}</folder>\n  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{pictured.width_px}</width><height>{pictured.height_px}</height><depth>3</depth></size>\n"
        f"{objects}</annotation>\n"
    )


def _bndbox(box_xyxy_px: Box) -> str:
    x1, y1, x2, y2 = box_xyxy_px
    return f"<bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"


def labelme_annotation(pictured: Scene) -> bytes:
    """Return labelme's JSON, as on Windows; rectangles and polygons by turns."""
    shapes: list[dict[str, object]] = []
    for index, shape in enumerate(pictured.shapes):
        x1, y1, x2, y2 = shape.box_xyxy_px
        polygon = index % 2 == 1
        points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] if polygon else [[x2, y1], [x1, y2]]
        kind = "polygon" if polygon else "rectangle"
        shapes.append({"label": shape.category, "points": points, "group_id": None, "shape_type": kind, "flags": {}})
    up = "..\\" * (pictured.image_path.count("/") + 1)
    return orjson.dumps(
        {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{up}pictures\\" + pictured.image_path.replace("/", "\\"),
            "imageData": None,
            "imageHeight": pictured.height_px,
            "imageWidth": pictured.width_px,
        },
        option=orjson.OPT_INDENT_2,
    )


def open_images_id(pictured: Scene) -> str:
    """Return the scene's image in Open Images' form: 16 hexadecimal digits."""
    return f"{image_id(pictured):016x}"


def box_rows(pictured: Scene) -> str:
    """Return the rows of a scene's boxes; those of crowds are groups."""
    names = {category_id: category for category, category_id in CATEGORY_IDS.items()}
    rows = []
    for record in shape_and_crowd_records(pictured):
        x, y, width_px, height_px = record["bbox"]
        edges = [x / pictured.width_px, (x + width_px) / pictured.width_px]
        edges += [y / pictured.height_px, (y + height_px) / pictured.height_px]
        mid, group = _MIDS[names[record["category_id"]]], record["iscrowd"]
        numbers = ",".join(map(str, edges))
        rows.append(f"{open_images_id(pictured)},{_OPEN_IMAGES_SOURCE},{mid},1,{numbers},0,0,{group},0,0\n")
    return "".join(rows)


def label_rows(pictured: Scene) -> str:
    """Return the rows of a scene's verified labels: what it shows, and some of what it does not."""
    absent = absent_categories(pictured)
    draws = KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, "open images")
    negatives = [absent[i] for i in draws.sample(len(absent), 1 + draws.below(_MOST_NEGATIVES))]
    present = dict.fromkeys(shape.category for shape in pictured.shapes)
    labels = [*((category, 1) for category in present), *((category, 0) for category in negatives)]
    image = open_images_id(pictured)
    return "".join(f"{image},verification,{_MIDS[category]},{confidence}\n" for category, confidence in labels)
