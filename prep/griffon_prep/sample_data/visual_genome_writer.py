"""Objects and region descriptions of a scene in Visual Genome's format, with images in two folders.

As published, names are not all in lower case, and some descriptions belong to several regions of an image.
"""

from __future__ import annotations

from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.expressions import unique_expressions
from griffon_prep.sample_data.scene import Scene, boxes_by_category, xywh_of
from griffon_prep.sample_data.words import article

_FOLDERS = ("VG_100K", "VG_100K_2")
_MOST_EXPRESSIONS = 4  # of one image, that fit one shape


def picture_path(pictured: Scene) -> str:
    """Return the image's path under the image root."""
    return f"{_FOLDERS[pictured.number % len(_FOLDERS)]}/{_image_id(pictured)}.jpg"


def image_data_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return an element of `image_data.json`: the scene's size and URL."""
    return [
        {
            "image_id": _image_id(pictured),
            "url": f"https://images.example.org/{picture_path(pictured)}",
            "width": pictured.width_px,
            "height": pictured.height_px,
            "coco_id": None,
            "flickr_id": None,
        }
    ]


def object_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return an element of `objects.json`: all shapes with their names."""
    objects = []
    for index, shape in enumerate(pictured.shapes):
        x, y, width_px, height_px = xywh_of(shape.box_xyxy_px)
        name = shape.category
        if (pictured.number + index) % 4 == 3:
            name = f" {name.title()}" if index % 2 else f"{name.upper()} "
        objects.append(
            {
                "object_id": _item_id(pictured, index),
                "names": [name, shape.kind],
                "synsets": [],
                "x": x,
                "y": y,
                "w": width_px,
                "h": height_px,
                "merged_object_ids": [],
            }
        )
    return [{"image_id": _image_id(pictured), "objects": objects}]


def region_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return an element of `region_descriptions.json`.

    It has descriptions of single shapes, and one description of every shape of the most frequent category.
    """
    draws = KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, "visual_genome regions")
    unique = unique_expressions(pictured)
    drawn = [unique[i] for i in draws.sample(len(unique), min(_MOST_EXPRESSIONS, len(unique)))]
    described = [(text, shape.box_xyxy_px) for text, shape in drawn]
    category, boxes = max(boxes_by_category(pictured).items(), key=lambda item: len(item[1]))
    # `a red star` is true of each region, unlike `all red stars`; VG asks for all of them together.
    described += [(f"{article(category)} {category}", box) for box in boxes]
    regions = []
    for index, (phrase, box_xyxy_px) in enumerate(draws.shuffled(described)):
        x, y, width_px, height_px = xywh_of(box_xyxy_px)
        regions.append(
            {
                "region_id": _item_id(pictured, index),
                "image_id": _image_id(pictured),
                "phrase": phrase,
                "x": x,
                "y": y,
                "width": width_px,
                "height": height_px,
            }
        )
    return [{"id": _image_id(pictured), "regions": regions}]


def _image_id(pictured: Scene) -> int:
    return pictured.number + 1


def _item_id(pictured: Scene, index: int) -> int:
    """Return the id of an object or a region of the image."""
    return 100 * pictured.number + index + 1
