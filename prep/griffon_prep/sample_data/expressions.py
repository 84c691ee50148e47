"""Expressions that name exactly one shape of a scene, such as `the largest blue circle`; or several shapes, or none.

An order (largest, leftmost) is used only where it is visible to the naked eye.
"""

from __future__ import annotations

from collections.abc import Iterator

from griffon_prep.sample_data.masks import KINDS
from griffon_prep.sample_data.scene import COLOURS, Box, Scene, Shape, absent_categories
from griffon_prep.sample_data.words import plural

# For each side: the wording near that edge of the image, and elsewhere.
_SIDES = {
    "left": ("the {} at the far left", "the leftmost {}"),
    "right": ("the {} at the far right", "the rightmost {}"),
    "top": ("the {} at the very top", "the topmost {}"),
    "bottom": ("the {} at the very bottom", "the lowest {}"),
}
_SIDE_MARGIN_PERCENT = 3  # of the image's side
_AREA_MARGIN_PERCENT = 130


def unique_expressions(pictured: Scene) -> list[tuple[str, Shape]]:
    """Return all expressions that fit exactly one shape, each with that shape.

    Returns:
        At least one pair; all texts are different, but several may name the same shape.
    """
    expressions: list[tuple[str, Shape]] = []
    for noun, group in _groups(pictured).items():
        if len(group) == 1:
            # `the only`: `the red shape` would leave open what kind of shape it is.
            expressions.append((f"the only {noun}" if noun.endswith("shape") else f"the {noun}", group[0]))
        else:
            expressions.extend(_by_place(pictured, noun, group))
            if not noun.endswith("shape"):  # Areas are compared within a kind: they are hard to judge across kinds.
                expressions.extend(_by_size(noun, group))
    return expressions


def plural_expressions(pictured: Scene) -> list[tuple[str, list[Shape]]]:
    """Return expressions for groups of two or more shapes, such as `all red stars`; `all shapes` is always included."""
    return [(f"all {plural(noun)}", group) for noun, group in _groups(pictured).items() if len(group) > 1]


def absent_expressions(pictured: Scene) -> list[str]:
    """Return expressions that fit nothing in the scene."""
    colours = {shape.colour for shape in pictured.shapes}
    kinds = {shape.kind for shape in pictured.shapes}
    return [
        *(f"the {category}" for category in absent_categories(pictured)),
        *(f"all {colour} shapes" for colour in COLOURS if colour not in colours),
        *(f"all {plural(kind)}" for kind in KINDS if kind not in kinds),
    ]


def _groups(pictured: Scene) -> dict[str, list[Shape]]:
    """Return the shapes by every noun that fits them: shape, kind, colour and shape, colour and kind."""
    groups: dict[str, list[Shape]] = {}
    for shape in pictured.shapes:
        for noun in ("shape", shape.kind, f"{shape.colour} shape", shape.category):
            groups.setdefault(noun, []).append(shape)
    return groups


def _by_place(pictured: Scene, noun: str, group: list[Shape]) -> Iterator[tuple[str, Shape]]:
    """Yield expressions for shapes that are farther to one side than all others, by both edge and middle."""
    for side, (near, elsewhere) in _SIDES.items():
        across_px = pictured.width_px if side in ("left", "right") else pictured.height_px
        distances_px = [_distances_px(pictured, shape.box_xyxy_px, side) for shape in group]
        first = min(range(len(group)), key=distances_px.__getitem__)
        edge_px, middle_px = distances_px.pop(first)
        margin_px = across_px * _SIDE_MARGIN_PERCENT / 100
        if all(edge >= edge_px + margin_px and middle >= middle_px + margin_px for edge, middle in distances_px):
            yield (near if middle_px < across_px / 3 else elsewhere).format(noun), group[first]


def _distances_px(pictured: Scene, box_xyxy_px: Box, side: str) -> tuple[float, float]:
    """Return the distances of the box's nearest edge and of its middle from one side of the image."""
    x1, y1, x2, y2 = box_xyxy_px
    start_px, end_px = (x1, x2) if side in ("left", "right") else (y1, y2)
    if side in ("right", "bottom"):
        whole_px = pictured.width_px if side == "right" else pictured.height_px
        start_px, end_px = whole_px - end_px, whole_px - start_px
    return start_px, (start_px + end_px) / 2


def _by_size(noun: str, group: list[Shape]) -> Iterator[tuple[str, Shape]]:
    """Yield expressions for the largest and the smallest shape, if the next one differs clearly in size."""
    ranked = sorted(group, key=_area_px2)
    if _area_px2(ranked[1]) * 100 >= _area_px2(ranked[0]) * _AREA_MARGIN_PERCENT:
        yield f"the smallest {noun}", ranked[0]
    if _area_px2(ranked[-1]) * 100 >= _area_px2(ranked[-2]) * _AREA_MARGIN_PERCENT:
        yield f"the largest {noun}", ranked[-1]


def _area_px2(shape: Shape) -> int:
    x1, y1, x2, y2 = shape.box_xyxy_px
    return (x2 - x1) * (y2 - y1)
