"""Small files in the published formats, for tests to write and to spoil."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CATEGORIES: list[dict[str, Any]] = [
    {"id": 17, "name": "cat"},
    {"id": 18, "name": "dog"},
    {"id": 90, "name": " cow "},
    {"id": 3, "name": "emu"},
]


def picture(number: object = 7, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """An entry of COCO's `images`."""
    return {"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 200, **more}


def box(number: object = 1, image_id: object = 7, category_id: object = 17, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """An entry of COCO's `annotations`; its box is x, y, width, height."""
    where = {"image_id": image_id, "category_id": category_id, "bbox": [10, 20, 30, 40]}
    return {"id": number, **where, "iscrowd": 0, **more}


def coco(images: object = None, annotations: object = None, categories: object = CATEGORIES) -> dict[str, Any]:
    """A COCO file; by default of one image with one box of a cat."""
    return {
        "info": {"year": 2014, "description": 'of "things", {everywhere}'},
        "images": [picture()] if images is None else images,
        "annotations": [box()] if annotations is None else annotations,
        "categories": categories,
    }


def ref(ann_id: object = 1, *phrases: str, split: str = "train", image_id: object = 7, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """A reference of RefCOCO; `no_target=` makes it one of gRefCOCO."""
    sentences = [
        {"sent_id": position, "sent": phrase, "raw": phrase.upper()} for position, phrase in enumerate(phrases)
    ]
    where = {"ref_id": 3, "ann_id": ann_id, "image_id": image_id, "split": split}
    return {**where, "file_name": "COCO_train2014_000000000007_1.jpg", "sentences": sentences, **more}


def write(folder: Path, files: Mapping[str, object]) -> Path:
    """Write files, values as JSON; gives the first, which is the annotation."""
    for name, content in files.items():
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def python2_text_pickle(value: object) -> bytes:
    """Pickle as Python 2's `pickle.dump(value, file)` did: protocol 0, strings as quoted bytes (UTF-8)."""
    if isinstance(value, dict):
        return b"(d" + b"".join(map(_items, value, value.values(), [python2_text_pickle] * len(value)))
    if isinstance(value, list):
        return b"(l" + b"".join(python2_text_pickle(item) + b"a" for item in value)
    if isinstance(value, str):
        return b"S" + repr(value.encode())[1:].encode() + b"\n"
    if isinstance(value, bool):
        return b"I01\n" if value else b"I00\n"
    assert isinstance(value, int | float)
    return f"{'I' if isinstance(value, int) else 'F'}{value}\n".encode()


def python2_binary_pickle(value: object) -> bytes:
    """Pickle as Python 2's `pickle.dump(value, file, 2)` did, without the memo."""
    if isinstance(value, dict):
        return b"}" + b"".join(map(_items, value, value.values(), [python2_binary_pickle] * len(value)))
    if isinstance(value, list):
        return b"](" + b"".join(map(python2_binary_pickle, value)) + b"e"
    if isinstance(value, str):
        raw = value.encode()
        return (b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))) + raw
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    assert isinstance(value, int | float)
    return b"J" + struct.pack("<i", value) if isinstance(value, int) else b"G" + struct.pack(">d", value)


def _items(key: object, value: object, dump: Any) -> bytes:  # noqa: ANN401 - either of the two above
    return bytes(dump(key) + dump(value) + b"s")
