"""Objects and region descriptions of a scene in Visual Genome's format; its pictures lie in two folders.

As published, names are not all in lower case, and some descriptions stand at several regions of a picture.
"""

from __future__ import annotations

from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.expressions import unique_expressions
from griffon_prep.sample_data.scene import Scene, boxes_by_category, xywh_of
from griffon_prep.sample_data.words import article

_FOLDERS = ("VG_100K", "VG_100K_2")
_MOST_EXPRESSIONS = 4  # of one picture, that fit one shape


def picture_path(pictured: Scene) -> str:
    """Where the picture lies under the image root."""
    return f"{_FOLDERS[pictured.number % len(_FOLDERS)]}/{_image_id(pictured)}.jpg"


def image_data_records(pictured: Scene) -> list[dict[str, Any]]:
    """The scene's size and address, an element of `image_data.json`."""
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
    """All shapes with their names, an element of `objects.json`."""
    objects = []
    for place, shape in enumerate(pictured.shapes):
        x, y, width_px, height_px = xywh_of(shape.box_xyxy_px)
        name = shape.category
        if (pictured.number + place) % 4 == 3:
            name = f" {name.title()}" if place % 2 else f"{name.upper()} "
        objects.append(
            {
                "object_id": _number(pictured, place),
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
    """Descriptions of one shape, and one that is said of every shape of the commonest category.

    Returns:
        An element of `region_descriptions.json`.
    """
    draws = KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, "visual_genome regions")
    found = unique_expressions(pictured)
    drawn = [found[i] for i in draws.sample(len(found), min(_MOST_EXPRESSIONS, len(found)))]
    described = [(text, shape.box_xyxy_px) for text, shape in drawn]
    category, boxes = max(boxes_by_category(pictured).items(), key=lambda item: len(item[1]))
    # `a red star` of each red star is true of a region, as `all red stars` would not be, and VG asks for them together.
    described += [(f"{article(category)} {category}", box) for box in boxes]
    regions = []
    for place, (phrase, box_xyxy_px) in enumerate(draws.shuffled(described)):
        x, y, width_px, height_px = xywh_of(box_xyxy_px)
        regions.append(
            {
                "region_id": _number(pictured, place),
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


def _number(pictured: Scene, place: int) -> int:
    """The number of an object or a region of the picture."""
    return 100 * pictured.number + place + 1
