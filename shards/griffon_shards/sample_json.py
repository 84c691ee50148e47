"""`KEY.json`: the same keys and types in every sample of every source, so that readers need not guess a schema.

There are no nulls. Without an image, width and height are 0 and the format is empty. A missing region is four zeros.
Without boxes in its answers, a sample has an empty list of them. Sets of older versions have no `boxes` at all, and
no `image` in `origin`.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY, Origin, Rendering, Sample, Turn

_NO_REGION = [0.0, 0.0, 0.0, 0.0]


def encode_sample(sample: Sample) -> bytes:
    """The bytes of `KEY.json`. Renderings after the first are under `variants`, in order."""
    first, *others = [_rendering_fields(rendering) for rendering in sample.renderings]
    fields: dict[str, Any] = {
        **first,
        "height": sample.height_px,
        "image_format": sample.image_format,
        "origin": _origin_fields(sample.origin),
        "task": sample.task,
        "width": sample.width_px,
    }
    if others:
        fields["variants"] = others
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def decode_sample(key: str, image: bytes | None, json: bytes) -> Sample:
    """Make a sample from its members.

    Raises:
        DataError: the JSON does not have the fields that `encode_sample` writes.
    """
    try:
        fields = orjson.loads(json)
        return Sample(
            key=key,
            image=image,
            image_format=fields["image_format"],
            width_px=fields["width"],
            height_px=fields["height"],
            task=fields["task"],
            renderings=tuple(_rendering(item) for item in (fields, *fields.get("variants", ()))),
            origin=Origin(**fields["origin"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{key}.json is not a sample of a griffon shard: {error!r}") from error


def _origin_fields(origin: Origin) -> dict[str, Any]:
    fields: dict[str, Any] = {"annotation": origin.annotation, "record": origin.record}
    if origin.image is not None:
        fields["image"] = origin.image
    return fields


def _rendering_fields(rendering: Rendering) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "conversations": [{"from": turn.role, "value": turn.text} for turn in rendering.turns],
        "region": _NO_REGION if rendering.region_xyxy_px is None else [float(v) for v in rendering.region_xyxy_px],
    }
    if rendering.boxes_xyxy_px is not None:
        fields["boxes"] = [[float(v) for v in box] for box in rendering.boxes_xyxy_px]
    return fields


def _rendering(item: dict[str, Any]) -> Rendering:
    region = _box(item["region"])
    return Rendering(
        turns=tuple(Turn(role=turn["from"], text=turn["value"]) for turn in item["conversations"]),
        region_xyxy_px=region if any(region) else None,
        boxes_xyxy_px=tuple(_box(box) for box in item["boxes"]) if "boxes" in item else None,
    )


def _box(values: Sequence[float]) -> BoxXYXY:
    x1, y1, x2, y2 = values
    return float(x1), float(y1), float(x2), float(y2)
