"""`KEY.json`: the same keys and types in every sample of every source, so that readers need not guess a schema.

There are no nulls. Without an image, width and height are 0 and the format is empty. A missing region is four zeros.
"""

from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY, Origin, Rendering, Sample, Turn

_NO_REGION = [0.0, 0.0, 0.0, 0.0]


def encode_sample(sample: Sample) -> bytes:
    """The bytes of `KEY.json`. Renderings after the first are under `variants`, in order."""
    first, *others = [
        {
            "conversations": [{"from": turn.role, "value": turn.text} for turn in rendering.turns],
            "region": _NO_REGION if rendering.region_xyxy_px is None else [float(v) for v in rendering.region_xyxy_px],
        }
        for rendering in sample.renderings
    ]
    fields: dict[str, Any] = {
        **first,
        "height": sample.height_px,
        "image_format": sample.image_format,
        "origin": {"annotation": sample.origin.annotation, "record": sample.origin.record},
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
            origin=Origin(annotation=fields["origin"]["annotation"], record=fields["origin"]["record"]),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{key}.json is not a sample of a griffon shard: {error!r}") from error


def _rendering(item: dict[str, Any]) -> Rendering:
    x1, y1, x2, y2 = item["region"]
    region: BoxXYXY | None = (x1, y1, x2, y2) if any((x1, y1, x2, y2)) else None
    turns = tuple(Turn(role=turn["from"], text=turn["value"]) for turn in item["conversations"])
    return Rendering(turns=turns, region_xyxy_px=region)
