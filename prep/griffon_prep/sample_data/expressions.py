"""Expressions that name exactly one shape of a scene, as `the largest blue circle`; several, or none of them.

An order (largest, leftmost) is only spoken of where it can be seen with the naked eye.
"""

from __future__ import annotations

from collections.abc import Iterator

from griffon_prep.sample_data.masks import KINDS
from griffon_prep.sample_data.scene import COLOURS, Box, Scene, Shape, absent_categories
from griffon_prep.sample_data.words import plural

# Side: what is said near that edge of the picture, and elsewhere.
_SIDES = {
    "left": ("the {} at the far left", "the leftmost {}"),
    "right": ("the {} at the far right", "the rightmost {}"),
    "top": ("the {} at the very top", "the topmost {}"),
    "bottom": ("the {} at the very bottom", "the lowest {}"),
}
_SIDE_MARGIN_PERCENT = 3  # of the picture's side
_AREA_MARGIN_PERCENT = 130


def unique_expressions(pictured: Scene) -> list[tuple[str, Shape]]:
    """All expressions that fit one shape and no other, with that shape.

    Returns:
        At least one pair; the texts differ from one another, several may name the same shape.
    """
    found: list[tuple[str, Shape]] = []
    for noun, group in _groups(pictured).items():
        if len(group) == 1:
            # `the only`, for `the red shape` alone would leave open what else it is.
            found.append((f"the only {noun}" if noun.endswith("shape") else f"the {noun}", group[0]))
        else:
            found.extend(_by_place(pictured, noun, group))
            if not noun.endswith("shape"):  # Areas are compared within a kind: they are hard to judge across kinds.
                found.extend(_by_size(noun, group))
    return found


def plural_expressions(pictured: Scene) -> list[tuple[str, list[Shape]]]:
    """Expressions for all shapes of a look where they are two or more, as `all red stars`; always with `all shapes`."""
    return [(f"all {plural(noun)}", group) for noun, group in _groups(pictured).items() if len(group) > 1]


def absent_expressions(pictured: Scene) -> list[str]:
    """Expressions that fit nothing in the scene."""
    colours = {shape.colour for shape in pictured.shapes}
    kinds = {shape.kind for shape in pictured.shapes}
    return [
        *(f"the {category}" for category in absent_categories(pictured)),
        *(f"all {colour} shapes" for colour in COLOURS if colour not in colours),
        *(f"all {plural(kind)}" for kind in KINDS if kind not in kinds),
    ]


def _groups(pictured: Scene) -> dict[str, list[Shape]]:
    """The shapes under every noun that fits them: shape, kind, colour and shape, colour and kind."""
    groups: dict[str, list[Shape]] = {}
    for shape in pictured.shapes:
        for noun in ("shape", shape.kind, f"{shape.colour} shape", shape.category):
            groups.setdefault(noun, []).append(shape)
    return groups


def _by_place(pictured: Scene, noun: str, group: list[Shape]) -> Iterator[tuple[str, Shape]]:
    """Expressions for the members that are farther to one side than all others, by their edge and their middle."""
    for side, (near, elsewhere) in _SIDES.items():
        across_px = pictured.width_px if side in ("left", "right") else pictured.height_px
        distances_px = [_distances_px(pictured, shape.box_xyxy_px, side) for shape in group]
        first = min(range(len(group)), key=distances_px.__getitem__)
        edge_px, middle_px = distances_px.pop(first)
        margin_px = across_px * _SIDE_MARGIN_PERCENT / 100
        if all(edge >= edge_px + margin_px and middle >= middle_px + margin_px for edge, middle in distances_px):
            yield (near if middle_px < across_px / 3 else elsewhere).format(noun), group[first]


def _distances_px(pictured: Scene, box_xyxy_px: Box, side: str) -> tuple[float, float]:
    """How far the box's nearest edge and its middle are from one side of the picture."""
    x1, y1, x2, y2 = box_xyxy_px
    start_px, end_px = (x1, x2) if side in ("left", "right") else (y1, y2)
    if side in ("right", "bottom"):
        whole_px = pictured.width_px if side == "right" else pictured.height_px
        start_px, end_px = whole_px - end_px, whole_px - start_px
    return start_px, (start_px + end_px) / 2


def _by_size(noun: str, group: list[Shape]) -> Iterator[tuple[str, Shape]]:
    """Expressions for the largest and the smallest member, where the next one is clearly smaller or larger."""
    ranked = sorted(group, key=_area_px2)
    if _area_px2(ranked[1]) * 100 >= _area_px2(ranked[0]) * _AREA_MARGIN_PERCENT:
        yield f"the smallest {noun}", ranked[0]
    if _area_px2(ranked[-1]) * 100 >= _area_px2(ranked[-2]) * _AREA_MARGIN_PERCENT:
        yield f"the largest {noun}", ranked[-1]


def _area_px2(shape: Shape) -> int:
    x1, y1, x2, y2 = shape.box_xyxy_px
    return (x2 - x1) * (y2 - y1)
