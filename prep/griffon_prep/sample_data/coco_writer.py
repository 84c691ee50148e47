"""Boxes of a scene in COCO's format and in LVIS's, which has no file names and looks for some categories only.

The numbers of pictures, annotations and categories are those of `refcoco` and `mdetr` too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.masks import KINDS
from griffon_prep.sample_data.scene import CATEGORIES, Box, Scene, absent_categories, boxes_by_category, xywh_of

_EMPTY_EVERY = 16  # pictures
_CROWD_FROM = 3  # boxes of a category
_FIRST_CROWD = 51  # above the number of any shape of a picture
_MOST_NEGATIVES = 8
_LVIS_FOLDER = "train2017"

# With a gap after each colour, as COCO's own numbers have gaps.
CATEGORY_IDS = {category: place + place // len(KINDS) + 1 for place, category in enumerate(CATEGORIES)}


def category_records() -> list[dict[str, Any]]:
    """The elements of `categories`."""
    return [
        {"supercategory": category.split()[-1], "id": number, "name": category}
        for category, number in CATEGORY_IDS.items()
    ]


def empty_scenes(pictured: Scene) -> list[Scene]:
    """A picture of the scene's background alone, after every sixteenth scene; else none."""
    if pictured.number % _EMPTY_EVERY != _EMPTY_EVERY - 1:
        return []
    suffix = pictured.image_path.rpartition(".")[2]
    return [replace(pictured, image_path=f"空白 empty/background {pictured.number:04d}.{suffix}", shapes=())]


def image_id(pictured: Scene) -> int:
    """The picture's number: odd for a scene with shapes, even for an empty one."""
    return 2 * pictured.number + (1 if pictured.shapes else 2)


def annotation_id(pictured: Scene, place: int) -> int:
    """The number of the annotation of one of the scene's shapes, by the shape's place among them."""
    return 100 * pictured.number + place + 1


def image_record(pictured: Scene) -> dict[str, Any]:
    """The scene as an element of `images`."""
    return {
        "id": image_id(pictured),
        "file_name": pictured.image_path,
        "height": pictured.height_px,
        "width": pictured.width_px,
    }


def image_records(pictured: Scene) -> list[dict[str, Any]]:
    """The scene, and the empty picture after it where there is one, as elements of `images`."""
    return [image_record(shown) for shown in (pictured, *empty_scenes(pictured))]


def shape_records(pictured: Scene) -> list[dict[str, Any]]:
    """An element of `annotations` for each shape."""
    return [
        annotation_record(pictured, annotation_id(pictured, place), shape.category, shape.box_xyxy_px)
        for place, shape in enumerate(pictured.shapes)
    ]


def shape_and_crowd_records(pictured: Scene) -> list[dict[str, Any]]:
    """As `shape_records`, and a crowd around all shapes of a category where they are three or more."""
    crowds = [(category, boxes) for category, boxes in boxes_by_category(pictured).items() if len(boxes) >= _CROWD_FROM]
    return shape_records(pictured) + [
        {**annotation_record(pictured, annotation_id(pictured, place), category, _around(boxes)), "iscrowd": 1}
        for place, (category, boxes) in enumerate(crowds, _FIRST_CROWD)
    ]


def annotation_record(pictured: Scene, number: int, category: str, box_xyxy_px: Box) -> dict[str, Any]:
    """An element of `annotations`, with the box as x, y, width, height."""
    x, y, width_px, height_px = xywh_of(box_xyxy_px)
    return {
        "id": number,
        "image_id": image_id(pictured),
        "category_id": CATEGORY_IDS[category],
        "bbox": [x, y, width_px, height_px],
        "area": width_px * height_px,
        "iscrowd": 0,
    }


def lvis_image_path(pictured: Scene) -> str:
    """Where LVIS's picture of the scene lies under its image root: its web address ends so."""
    return f"{_LVIS_FOLDER}/{image_id(pictured):012d}.jpg"


def lvis_image_records(pictured: Scene) -> list[dict[str, Any]]:
    """The scene as LVIS has it: by its web address, with some categories that are not there.

    A category of many boxes is said not to be looked for exhaustively, though all its boxes are annotated.
    """
    absent = absent_categories(pictured)
    draws = KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, "lvis")
    negatives = draws.sample(len(absent), 1 + draws.below(_MOST_NEGATIVES))
    many = [category for category, boxes in boxes_by_category(pictured).items() if len(boxes) >= _CROWD_FROM]
    return [
        {
            "id": image_id(pictured),
            "coco_url": f"http://images.example.org/{lvis_image_path(pictured)}",
            "height": pictured.height_px,
            "width": pictured.width_px,
            "neg_category_ids": [CATEGORY_IDS[absent[i]] for i in negatives],
            "not_exhaustive_category_ids": [CATEGORY_IDS[category] for category in many],
        }
    ]


def lvis_annotation_records(pictured: Scene) -> list[dict[str, Any]]:
    """As `shape_records`; LVIS knows no crowds."""
    return [{name: value for name, value in record.items() if name != "iscrowd"} for record in shape_records(pictured)]


def _around(boxes: list[Box]) -> Box:
    """The smallest box around some boxes."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)
