"""Boxes of a scene in COCO's format and in LVIS's, which has no file names and annotates only some categories.

The ids of images, annotations and categories are also used by `refcoco` and `mdetr`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.masks import KINDS
from griffon_prep.sample_data.scene import CATEGORIES, Box, Scene, absent_categories, boxes_by_category, xywh_of

_EMPTY_EVERY = 16  # images
_CROWD_FROM = 3  # boxes of a category
_FIRST_CROWD = 51  # above the index of any shape of an image
_MOST_NEGATIVES = 8
_LVIS_FOLDER = "train2017"

# With a gap after each colour, because COCO's own ids have gaps.
CATEGORY_IDS = {category: index + index // len(KINDS) + 1 for index, category in enumerate(CATEGORIES)}


def category_records() -> list[dict[str, Any]]:
    """Return the elements of `categories`."""
    return [
        {"supercategory": category.split()[-1], "id": category_id, "name": category}
        for category, category_id in CATEGORY_IDS.items()
    ]


def empty_scenes(pictured: Scene) -> list[Scene]:
    """Return an image of only the scene's background after every sixteenth scene; otherwise none."""
    if pictured.number % _EMPTY_EVERY != _EMPTY_EVERY - 1:
        return []
    suffix = pictured.image_path.rpartition(".")[2]
    return [replace(pictured, image_path=f"空白 empty/background {pictured.number:04d}.{suffix}", shapes=())]


def image_id(pictured: Scene) -> int:
    """Return the image's id: odd for a scene with shapes, even for an empty one."""
    return 2 * pictured.number + (1 if pictured.shapes else 2)


def annotation_id(pictured: Scene, index: int) -> int:
    """Return the annotation id of one of the scene's shapes, by the shape's index."""
    return 100 * pictured.number + index + 1


def image_record(pictured: Scene) -> dict[str, Any]:
    """Return the scene as an element of `images`."""
    return {
        "id": image_id(pictured),
        "file_name": pictured.image_path,
        "height": pictured.height_px,
        "width": pictured.width_px,
    }


def image_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the scene, and the empty image after it, if any, as elements of `images`."""
    return [image_record(shown) for shown in (pictured, *empty_scenes(pictured))]


def shape_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return an element of `annotations` for each shape."""
    return [
        annotation_record(pictured, annotation_id(pictured, index), shape.category, shape.box_xyxy_px)
        for index, shape in enumerate(pictured.shapes)
    ]


def shape_and_crowd_records(pictured: Scene) -> list[dict[str, Any]]:
    """Like `shape_records`, plus a crowd around all shapes of each category that has three or more."""
    crowds = [(category, boxes) for category, boxes in boxes_by_category(pictured).items() if len(boxes) >= _CROWD_FROM]
    return shape_records(pictured) + [
        {**annotation_record(pictured, annotation_id(pictured, index), category, _around(boxes)), "iscrowd": 1}
        for index, (category, boxes) in enumerate(crowds, _FIRST_CROWD)
    ]


def annotation_record(pictured: Scene, number: int, category: str, box_xyxy_px: Box) -> dict[str, Any]:
    """Return an element of `annotations`, with the box as x, y, width, height."""
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
    """Return the path of LVIS's image of the scene under its image root, which is the end of its URL."""
    return f"{_LVIS_FOLDER}/{image_id(pictured):012d}.jpg"


def lvis_image_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the scene in LVIS's form: with its URL and some absent categories.

    A category with many boxes is listed as not exhaustively annotated, although all its boxes are annotated.
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
    """Like `shape_records`, without `iscrowd`, which LVIS does not have."""
    return [{name: value for name, value in record.items() if name != "iscrowd"} for record in shape_records(pictured)]


def _around(boxes: list[Box]) -> Box:
    """Return the smallest box around the boxes."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)
