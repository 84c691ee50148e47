"""Small sources of the formats with a file for each image, for tests to write and to spoil: YOLO, VOC, labelme."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

SIZE_PX = (200, 100)
CAT, DOG = "cat", "dog"


def write_files(folder: Path, files: Mapping[str, object]) -> Path:
    """Write files below a folder: bytes and text as they are, other values as JSON, None as an image of 200x100."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", SIZE_PX).save(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def yolo(
    labels: Mapping[str, object], *, names: str = "[cat, dog]", train: str = "images/train", more: str = ""
) -> dict[str, object]:
    """The files of a YOLO set: a `data.yaml`, and an image and a label by stem; a label of None is not written."""
    files: dict[str, object] = {"data.yaml": f"path: .\ntrain: {train}\nnames: {names}\n{more}"}
    files |= {f"images/train/{stem}.jpg": None for stem in labels}
    files |= {f"labels/train/{stem}.txt": label for stem, label in labels.items() if label is not None}
    return files


def voc_object(name: str, box: tuple[object, object, object, object], more: str = "") -> str:
    xmin, ymin, xmax, ymax = box
    edges = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def voc(*objects: str, filename: str = "a.jpg", size: str | None = None, more: str = "") -> str:
    """One image's XML of VOC."""
    if size is None:
        size = "<size><width>200</width><height>100</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{more}{size}{''.join(objects)}</annotation>"


def labelme(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """One image's JSON of labelme."""
    fields: dict[str, Any] = {
        "version": "5.4.1",
        "flags": {},
        "imagePath": "a.jpg",
        "imageData": None,
        "shapes": list(shapes),
    }
    return {**fields, "imageHeight": 100, "imageWidth": 200, **more}


def shape(label: object, points: object, kind: object = "rectangle", **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}
