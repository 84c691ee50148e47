"""COCO files whose boxes are corners x1, y1, x2, y2, as some tools write them: nothing else would show it."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from .published import box, coco, picture, write
from .reading import read_source

WIDTH, HEIGHT = 200, 100
SAID = "boxes extend beyond their images: boxes are read as COCO's x, y, width, height"

Box = tuple[float, float, float, float]


def corners(random: Random) -> Box:
    """A box somewhere in an image."""
    (x1, x2), (y1, y2) = (sorted(random.sample(range(side + 1), 2)) for side in (WIDTH, HEIGHT))
    return x1, y1, x2, y2


def sizes(random: Random) -> Box:
    x1, y1, x2, y2 = corners(random)
    return x1, y1, x2 - x1, y2 - y1


def far_out(random: Random) -> Box:
    """Boxes of people who are half outside of the image: they fit neither reading."""
    x, y, width, height = sizes(random)
    return x + WIDTH / 2, y + HEIGHT / 2, width, height


def notes(folder: Path, make: Callable[[Random], Box], count: int, task: str = "DET", **entry: Any) -> str:  # noqa: ANN401 - JSON
    random = Random(f"{make.__name__} {count}")
    boxes = [box(i, i % 7, bbox=list(make(random))) for i in range(count)]
    captions = {"caption": "a cat"} if task == "VG" else {}
    pictures = [picture(i, **captions, **entry) for i in range(7)]
    _, scan = read_source(write(folder, {"a.json": coco(pictures, boxes)}), task)
    return "\n".join(scan.notes)


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ", "VG"])
@pytest.mark.parametrize("count", [10, 400])
def test_corners_are_recognised(tmp_path: Path, task: str, count: int) -> None:
    assert SAID in notes(tmp_path, corners, count, task)


def endless(_: Random) -> Box:
    return 1e308, 0.0, 1e308, 1.0


@pytest.mark.parametrize("count", [10, 400])
@pytest.mark.parametrize("make", [sizes, far_out, endless])
def test_other_boxes_are_not_clamped(tmp_path: Path, make: Callable[[Random], Box], count: int) -> None:
    assert SAID not in notes(tmp_path, make, count)


@pytest.mark.parametrize("entry", [{"width": None}, {"height": "100"}, {"width": 1 << 2000}, {}])
def test_few_boxes_or_images_without_size_report_nothing(tmp_path: Path, entry: dict[str, Any]) -> None:
    assert SAID not in notes(tmp_path, corners, 400 if entry else 9, **entry)
