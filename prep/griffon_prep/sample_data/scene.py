"""The content of each image of the sample data: a pure function of the seed and the image's number.

A scene holds everything that the annotation formats need; `paint` and the `*_writer` modules turn it into files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data.masks import KINDS, bounds_xyxy_px, mask

Box = tuple[int, int, int, int]

# Annotations use the English names, file names the Chinese ones.
COLOURS = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "black": "黑色",
}
CATEGORIES = tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)
TEXTURES = ("striped", "checked", "speckled", "shaded", "cloudy")
TONES = ("grey", "beige", "slate", "cream")

_SUFFIXES = ("jpg", "png", "webp")
_FOLDERS = ("图形", "图形/第二批 混合", "shapes", "shapes/with blanks", "样例 samples/几何")
_MIN_SIDE_PX, _MAX_SIDE_PX = 160, 700
_MAX_SHAPES = 9
_EQUAL_SIDES = ("square", "circle", "ring")
_LONG = ("bar", "oval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape; later shapes of a scene are painted over earlier ones.

    `left_px`, `top_px`, `width_px` and `height_px` are the canvas of its mask, which is completely inside the image.
    `box_xyxy_px` is the exact bounding box of the shape's pixels, visible or covered; x2 and y2 are exclusive.
    """

    colour: str
    kind: str
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    box_xyxy_px: Box

    @property
    def category(self) -> str:
        """Colour and kind, as in `red square`."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One image: its size, its background and at least two shapes.

    `image_path` is relative to the image folder, with `/` as separator. `period_px` is the width of a stripe or of a
    square of the background.
    """

    seed: int
    number: int
    image_path: str
    width_px: int
    height_px: int
    texture: str
    tone: str
    period_px: int
    shapes: tuple[Shape, ...]


def scene(seed: int, number: int) -> Scene:
    """Generate one scene.

    Args:
        seed: seed of the data set.
        number: the image's number, from 0.
    """
    draws = KeyedRandom(seed, "sample_data", number, 0, "picture")
    width_px = between(draws, _MIN_SIDE_PX, _MAX_SIDE_PX)
    height_px = between(draws, _MIN_SIDE_PX, _MAX_SIDE_PX)
    texture, tone, period_px = draws.choice(TEXTURES), draws.choice(TONES), between(draws, 7, 40)
    shapes = _shapes(KeyedRandom(seed, "sample_data", number, 0, "shapes"), width_px, height_px)
    name = f"shape {number:04d} {COLOURS[shapes[0].colour]}.{_SUFFIXES[number % len(_SUFFIXES)]}"
    return Scene(
        seed=seed,
        number=number,
        image_path=f"{draws.choice(_FOLDERS)}/{name}",
        width_px=width_px,
        height_px=height_px,
        texture=texture,
        tone=tone,
        period_px=period_px,
        shapes=shapes,
    )


def boxes_by_category(pictured: Scene) -> dict[str, list[Box]]:
    """Return the boxes of each category in the scene; categories and boxes are in painting order."""
    boxes: dict[str, list[Box]] = {}
    for shape in pictured.shapes:
        boxes.setdefault(shape.category, []).append(shape.box_xyxy_px)
    return boxes


def absent_categories(pictured: Scene, categories: Sequence[str] = CATEGORIES) -> list[str]:
    """Return the categories that are not in the scene, in their order."""
    present = boxes_by_category(pictured)
    return [category for category in categories if category not in present]


def xywh_of(box_xyxy_px: Box) -> Box:
    """Convert a box from corners to x, y, width, height."""
    x1, y1, x2, y2 = box_xyxy_px
    return x1, y1, x2 - x1, y2 - y1


def _shapes(draws: KeyedRandom, width_px: int, height_px: int) -> tuple[Shape, ...]:
    """Return two to nine shapes, each in its own cell of a coarse grid.

    A shape may extend beyond its cell so that neighbours overlap, but never so far that one is completely covered.
    """
    columns, rows = between(draws, 2, 3), between(draws, 2, 3)
    count = between(draws, 2, min(_MAX_SHAPES, columns * rows))
    cell_width_px, cell_height_px = width_px // columns, height_px // rows
    looks = _looks(draws, count)
    shapes = []
    for (colour, kind), cell in zip(looks, draws.sample(columns * rows, count), strict=True):
        shape_width_px, shape_height_px = _shape_size_px(draws, kind, min(cell_width_px, cell_height_px))
        centre_x_px = (2 * (cell % columns) + 1) * cell_width_px // 2 + _jitter_px(draws, cell_width_px)
        centre_y_px = (2 * (cell // columns) + 1) * cell_height_px // 2 + _jitter_px(draws, cell_height_px)
        left_px = min(max(centre_x_px - shape_width_px // 2, 0), width_px - shape_width_px)
        top_px = min(max(centre_y_px - shape_height_px // 2, 0), height_px - shape_height_px)
        shapes.append(placed(colour, kind, (left_px, top_px), (shape_width_px, shape_height_px)))
    return tuple(shapes)


def placed(colour: str, kind: str, corner_px: tuple[int, int], size_px: tuple[int, int]) -> Shape:
    """A shape whose mask has its upper left corner here, with its exact box."""
    (left_px, top_px), (width_px, height_px) = corner_px, size_px
    x1, y1, x2, y2 = bounds_xyxy_px(mask(kind, width_px, height_px))
    return Shape(
        colour=colour,
        kind=kind,
        left_px=left_px,
        top_px=top_px,
        width_px=width_px,
        height_px=height_px,
        box_xyxy_px=(left_px + x1, top_px + y1, left_px + x2, top_px + y2),
    )


def _looks(draws: KeyedRandom, count: int) -> list[tuple[str, str]]:
    """Return colour and kind of each shape: one look that occurs once, the others from a few looks that may repeat.

    The single one ensures that every scene has an expression that names exactly one shape.
    """
    names = tuple(COLOURS)
    colours = [names[i] for i in draws.sample(len(names), 3)]
    kinds = [KINDS[i] for i in draws.sample(len(KINDS), 3)]
    single, *others = [(colour, kind) for colour in colours for kind in kinds]
    few = [others[i] for i in draws.sample(len(others), 3)]
    return draws.shuffled([single, *(draws.choice(few) for _ in range(count - 1))])


def _shape_size_px(draws: KeyedRandom, kind: str, room_px: int) -> tuple[int, int]:
    """Return width and height of a shape; its longer side is 55 to 140 % of `room_px`."""
    long_px = room_px * between(draws, 55, 140) // 100
    if kind in _EQUAL_SIDES:
        return long_px, long_px
    percent = between(draws, 40, 60) if kind in _LONG else between(draws, 80, 100)
    short_px = long_px * percent // 100
    return (long_px, short_px) if draws.below(2) else (short_px, long_px)


def _jitter_px(draws: KeyedRandom, cell_px: int) -> int:
    """Return the offset of a shape's centre from its cell's centre, up to 20 % of the cell in either direction."""
    return cell_px * between(draws, -20, 20) // 100


def between(draws: KeyedRandom, low: int, high: int) -> int:
    """Return a uniformly random integer in [low, high]."""
    return low + draws.below(high - low + 1)
