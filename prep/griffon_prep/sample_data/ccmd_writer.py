"""Detection, referring, grounding and visual-search records of a scene in the `ccmd` format of the Griffon data.

Both forms that the format allows are used: one box or a list of one, one expression or several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.expressions import absent_expressions, unique_expressions
from griffon_prep.sample_data.scene import CATEGORIES, Box, Scene, absent_categories, boxes_by_category
from griffon_prep.sample_data.words import plural

_MOST_EXPRESSIONS = 4  # REG expressions of one image
_MOST_CATEGORIES = 5  # present categories of one RANDDET record, and as many absent ones


def det_records(pictured: Scene) -> list[dict[str, Any]]:
    """DET: one record with all objects."""
    return [_with_objects(pictured, dict(boxes_by_category(pictured)))]


def randdet_records(pictured: Scene, categories: Sequence[str] = CATEGORIES) -> list[dict[str, Any]]:
    """RANDDET: one record with some present categories and as many absent ones of `categories`, shuffled."""
    draws = _draws(pictured, "randdet")
    boxes = boxes_by_category(pictured)
    present, absent = list(boxes), absent_categories(pictured, categories)
    count = 1 + draws.below(min(_MOST_CATEGORIES, len(present)))
    asked = [present[i] for i in draws.sample(len(present), count)]
    asked += [absent[i] for i in draws.sample(len(absent), count)]
    return [_with_objects(pictured, {category: boxes.get(category, []) for category in draws.shuffled(asked)})]


def reg_records(pictured: Scene) -> list[dict[str, Any]]:
    """REG: some unique expressions; for every third image in one record with lists, otherwise one record each."""
    draws = _draws(pictured, "reg")
    expressions = unique_expressions(pictured)
    drawn = [expressions[i] for i in draws.sample(len(expressions), min(_MOST_EXPRESSIONS, len(expressions)))]
    if pictured.number % 3 == 1:
        texts = [text for text, _ in drawn]
        return [with_expression(pictured, texts, [shape.box_xyxy_px for _, shape in drawn])]
    return [
        with_expression(pictured, text, shape.box_xyxy_px if draws.below(2) else [shape.box_xyxy_px])
        for text, shape in drawn
    ]


def vg_records(pictured: Scene) -> list[dict[str, Any]]:
    """VG: an expression for all shapes of one look, a unique one, and for every other image one that fits nothing."""
    draws = _draws(pictured, "vg")
    shape = draws.choice(pictured.shapes)
    nouns = {
        shape.category: [other.box_xyxy_px for other in pictured.shapes if other.category == shape.category],
        f"{shape.colour} shape": [other.box_xyxy_px for other in pictured.shapes if other.colour == shape.colour],
        shape.kind: [other.box_xyxy_px for other in pictured.shapes if other.kind == shape.kind],
    }
    noun = draws.choice(list(nouns))
    text, single = draws.choice(unique_expressions(pictured))
    records = [
        with_expression(pictured, f"all {plural(noun)}", nouns[noun]),
        with_expression(pictured, text, [single.box_xyxy_px]),
    ]
    if pictured.number % 2 == 0:
        records.append(with_expression(pictured, draws.choice(absent_expressions(pictured)), []))
    records[0]["discrete_ids"] = [_discrete(pictured, box) for box in nouns[noun]]
    return records


def visj_records(pictured: Scene) -> list[dict[str, Any]]:
    """VISJ: one record with the categories of the scene, each with one or several boxes."""
    boxes = boxes_by_category(pictured)
    return [_with_objects(pictured, {category: boxes[category] for category in sorted(boxes)})]


def _draws(pictured: Scene, purpose: str) -> KeyedRandom:
    return KeyedRandom(pictured.seed, "sample_data", pictured.number, 0, f"ccmd {purpose}")


def _head(pictured: Scene) -> dict[str, Any]:
    return {"image_path": pictured.image_path, "height": pictured.height_px, "width": pictured.width_px}


def _with_objects(pictured: Scene, boxes: dict[str, list[Box]]) -> dict[str, Any]:
    """Return a record of categories; a category without boxes is absent."""
    objects = [{"category_name": category, "bboxes": of_category} for category, of_category in boxes.items()]
    return {**_head(pictured), "dataset_name": "shapes", "objects": objects}


def with_expression(pictured: Scene, expression: str | list[str], boxes: Box | list[Box]) -> dict[str, Any]:
    """Return a record of one expression with its boxes, or of a list of expressions with one box each."""
    return {**_head(pictured), "expression": expression, "bboxes": boxes}


def _discrete(pictured: Scene, box_xyxy_px: Box) -> list[int]:
    """Return the box in thousandths of the image's sides, which some published files have in addition to pixels."""
    sides_px = (pictured.width_px, pictured.height_px) * 2
    return [1000 * edge_px // side_px for edge_px, side_px in zip(box_xyxy_px, sides_px, strict=True)]
