"""Plain sample data: one to three bars of clear colours, apart on a white ground, for a model to learn to point.

A model of a million parameters with random weights learns from them to point within minutes. Images with one bar teach
it where things are, and the others which one is meant. Images are small, so that a box has few digits to guess. All
images are of one size, so that the labels of one can be given to another: from such labels nothing can be learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from griffon_prep.render.keyed_random import KeyedRandom
from griffon_prep.sample_data import ccmd_writer as ccmd
from griffon_prep.sample_data.files import Record, write_bytes, write_lines
from griffon_prep.sample_data.llava_writer import caption_record
from griffon_prep.sample_data.manifest_writer import MANIFEST_BEGIN
from griffon_prep.sample_data.paint import encode
from griffon_prep.sample_data.scene import Scene, Shape, between, placed
from griffon_shards.permutation import permutation_key, permute

WIDTH_PX, HEIGHT_PX = 100, 60  # not square: a model of swapped sides would not learn
COLOURS = ("red", "yellow", "green", "blue", "pink", "black")
KINDS = ("bar",)

_SHORTEST, _LONGEST = 28, 48  # sides of a shape, in percent of the image's
_GAP_PX = 4
_FEWEST, _MOST = 1, 3
_TRIES = 20

CATEGORIES = tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)


def _expression_records(pictured: Scene) -> list[Record]:
    """One record a shape: its colour, which no other has. One word is far easier to learn than `the red bar`."""
    return [ccmd.with_expression(pictured, shape.colour, [shape.box_xyxy_px]) for shape in pictured.shapes]


_RECORDS: Mapping[str, Callable[[Scene], list[Record]]] = {
    "LAZY": lambda pictured: [caption_record(pictured)],
    "DET": ccmd.det_records,
    "REG": _expression_records,
    "VG": _expression_records,
    "RANDDET": lambda pictured: ccmd.randdet_records(pictured, CATEGORIES),
    "VISJ": ccmd.visj_records,
}
"""The annotations of each task, one file each."""


def write_plain(out: Path, *, seed: int, images: int, tasks: Sequence[str], permute_labels: bool) -> Path:
    """Fill an empty folder with images, an annotation file for each task, and the manifest, whose path is returned."""
    for number in range(images):
        pictured = plain_scene(seed, number)
        write_bytes(out / "images" / pictured.image_path, encode(pictured))
    labels = _permuted(seed, images) if permute_labels else range(images)

    def every(task: str) -> Iterator[Record]:
        for number, labelled in enumerate(labels):
            shapes = plain_scene(seed, labelled).shapes
            yield from _RECORDS[task](replace(plain_scene(seed, number), shapes=shapes))

    for task in tasks:
        write_lines(out / f"{task.lower()}.jsonl", every(task))
    lines = [f"{task}_plain & {task.lower()}.jsonl & images\n".encode() for task in tasks]
    manifest = out / "manifest.txt"
    write_bytes(manifest, MANIFEST_BEGIN + b"\n" + b"".join(lines))
    return manifest


def _permuted(seed: int, images: int) -> list[int]:
    """By image, the image whose labels it gets; never its own: each gets those of the next in a shuffled circle."""
    circle = permute(np.arange(images), images, permutation_key(seed, "sample_data", "plain labels")).tolist()
    following = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    return [following[number] for number in range(images)]


def plain_scene(seed: int, number: int) -> Scene:
    """Generate one scene: no two of its shapes have the same colour, touch, or overlap.

    Args:
        seed: seed of the data set.
        number: the image's number, from 0.
    """
    draws = KeyedRandom(seed, "sample_data", number, 0, "plain")
    colours = [COLOURS[i] for i in draws.sample(len(COLOURS), between(draws, _FEWEST, _MOST))]
    shapes: list[Shape] = []
    while len(shapes) < len(colours):
        shapes = []
        for colour in colours:
            placed = (_shape(draws, colour) for _ in range(_TRIES))
            free = next((shape for shape in placed if not any(_close(shape, other) for other in shapes)), None)
            if free is None:
                break  # no room is left: all are placed again
            shapes.append(free)
    return Scene(
        seed=seed,
        number=number,
        image_path=f"{number:06d}.png",
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        texture="plain",
        tone="white",
        period_px=1,
        shapes=tuple(shapes),
    )


def _shape(draws: KeyedRandom, colour: str) -> Shape:
    kind = draws.choice(KINDS)
    width_px, height_px = (side_px * between(draws, _SHORTEST, _LONGEST) // 100 for side_px in (WIDTH_PX, HEIGHT_PX))
    left_px, top_px = draws.below(WIDTH_PX - width_px + 1), draws.below(HEIGHT_PX - height_px + 1)
    return placed(colour, kind, (left_px, top_px), (width_px, height_px))


def _close(one: Shape, other: Shape) -> bool:
    return (
        one.left_px < other.left_px + other.width_px + _GAP_PX
        and other.left_px < one.left_px + one.width_px + _GAP_PX
        and one.top_px < other.top_px + other.height_px + _GAP_PX
        and other.top_px < one.top_px + one.height_px + _GAP_PX
    )
