"""Conversations about boxes in the formats `grounding-jsonl` and `parquet`, about what `ccmd` and `llava` have, too."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson

from griffon_prep.sample_data.ccmd_writer import vg_records
from griffon_prep.sample_data.files import write_bytes
from griffon_prep.sample_data.llava_writer import caption_records
from griffon_prep.sample_data.scene import Scene, boxes_by_category

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None
"""Whether Parquet files can be written."""

_FRACTIONS_EVERY = 3  # scenes
_FILES, _ROWS_PER_GROUP = 2, 16


def detection_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return all shapes of the scene as ms-swift has them; of every third scene in fractions of the sides."""
    boxes = boxes_by_category(pictured)
    refs = list(boxes)
    sides = (pictured.width_px, pictured.height_px) * 2
    fractions = pictured.number % _FRACTIONS_EVERY == 1
    written = [
        [edge / side for edge, side in zip(box, sides, strict=True)] if fractions else list(box)
        for of_category in boxes.values()
        for box in of_category
    ]
    answer = "".join("<ref-object>" + "<bbox>" * len(of_category) for of_category in boxes.values())
    objects: dict[str, Any] = {"ref": refs, "bbox": written}
    if fractions:
        objects["bbox_type"] = "norm1"
    return [
        {
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "<image>Find all shapes."},
                {"role": "assistant", "content": answer},
            ],
            "images": [pictured.image_path],
            "objects": objects,
        }
    ]


def expression_records(pictured: Scene) -> list[dict[str, Any]]:
    """Return the expressions of `ccmd` that fit something as Qwen3-VL has them: in thousandths of the sides."""
    sides = (pictured.width_px, pictured.height_px) * 2
    records = []
    for record in vg_records(pictured):
        if not record["bboxes"]:
            continue
        items = [
            {
                "bbox_2d": [round(1000 * round(edge / side, 3)) for edge, side in zip(box, sides, strict=True)],
                "label": record["expression"],
            }
            for box in record["bboxes"]
        ]
        lines = ",\n".join("\t" + orjson.dumps(item).decode() for item in items)
        turns = [
            {"from": "human", "value": f"<image>\nLocate {record['expression']}, output the boxes in JSON format."},
            {"from": "gpt", "value": f"```json\n[\n{lines}\n]\n```"},
        ]
        records.append({"image": pictured.image_path, "conversations": turns})
    return records


def write_parquet(folder: Path, scenes: Iterable[Scene], image_of: Callable[[Scene], bytes]) -> None:
    """Write the captions of scenes with their images as Parquet files; images of every third scene by path alone."""
    import pyarrow
    import pyarrow.parquet

    turn = pyarrow.struct([("from", pyarrow.string()), ("value", pyarrow.string())])
    image_type = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("id", pyarrow.string()), ("image", image_type), ("conversations", pyarrow.list_(turn))])
    rows = []
    for pictured in scenes:
        by_path = pictured.number % _FRACTIONS_EVERY == 2
        image = {"bytes": None if by_path else image_of(pictured), "path": pictured.image_path}
        for record in caption_records(pictured):
            rows.append({"id": record["id"], "image": image, "conversations": record["conversations"]})
    half = -(-len(rows) // _FILES)
    for number in range(_FILES):
        out = BytesIO()
        table = pyarrow.Table.from_pylist(rows[number * half : (number + 1) * half], schema)
        pyarrow.parquet.write_table(table, out, row_group_size=_ROWS_PER_GROUP, write_page_checksum=True)
        write_bytes(folder / f"train-{number:05d}-of-{_FILES:05d}.parquet", out.getvalue())
