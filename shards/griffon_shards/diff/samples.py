"""Compare two samples with the same key, part by part."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from griffon_shards.types import BoxXYXY, Rendering, Sample

PARTS = ("conversation", "image", "region", "boxes", "variants", "task", "origin", "encoding")
"""The parts of a sample. `variants` is their number; the parts of a variant are compared where both samples have it.
`encoding` is all that remains: other bytes that mean the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartChange:
    """A part that differs.

    Attributes:
        part: one of `PARTS`.
        variant: the variant that it belongs to, or None for a part of the complete sample.
        a: its value in A, as plain JSON data; None where it has none.
        b: its value in B.
    """

    part: str
    variant: int | None
    a: object
    b: object


def changed_parts(a: Sample, b: Sample) -> list[PartChange]:
    """The parts that differ, in the order of `PARTS`. At least one, for samples whose bytes differ."""
    changes = [
        PartChange(part=part, variant=None, a=plain(a), b=plain(b))
        for part, (value, plain) in _OF_SAMPLE.items()
        if value(a) != value(b)
    ]
    for variant, (of_a, of_b) in enumerate(zip(a.renderings, b.renderings, strict=False)):
        changes += _of_rendering(variant, of_a, of_b)
    changes.sort(key=lambda change: PARTS.index(change.part))
    return changes or [PartChange(part="encoding", variant=None, a=None, b=None)]


def _of_rendering(variant: int, a: Rendering, b: Rendering) -> Iterator[PartChange]:
    for turn_a, turn_b in zip_longest(a.turns, b.turns):
        if turn_a != turn_b:
            texts = [turn and {"from": turn.role, "value": turn.text} for turn in (turn_a, turn_b)]
            yield PartChange(part="conversation", variant=variant, a=texts[0], b=texts[1])
    if a.region_xyxy_px != b.region_xyxy_px:
        yield PartChange(part="region", variant=variant, a=_plain(a.region_xyxy_px), b=_plain(b.region_xyxy_px))
    if a.boxes_xyxy_px != b.boxes_xyxy_px:
        boxes = [None if item.boxes_xyxy_px is None else [_plain(box) for box in item.boxes_xyxy_px] for item in (a, b)]
        yield PartChange(part="boxes", variant=variant, a=boxes[0], b=boxes[1])


def _plain(box: BoxXYXY | None) -> list[float] | None:
    return None if box is None else list(box)


def _image(sample: Sample) -> dict[str, object] | None:
    if sample.image is None:
        return None
    return {
        "format": sample.image_format,
        "width": sample.width_px,
        "height": sample.height_px,
        "bytes": len(sample.image),
        "sha256": hashlib.sha256(sample.image).hexdigest(),
    }


def _origin(sample: Sample) -> dict[str, object]:
    origin: dict[str, object] = {"annotation": sample.origin.annotation, "record": sample.origin.record}
    return origin if sample.origin.image is None else {**origin, "image": sample.origin.image}


_OF_SAMPLE: dict[str, tuple[Callable[[Sample], object], Callable[[Sample], object]]] = {
    "image": (lambda sample: (sample.image, sample.image_format, sample.width_px, sample.height_px), _image),
    "variants": (lambda sample: len(sample.renderings), lambda sample: len(sample.renderings)),
    "task": (lambda sample: sample.task, lambda sample: sample.task),
    "origin": (lambda sample: sample.origin, _origin),
}
"""By part: what is compared, and what is shown as plain JSON data."""
