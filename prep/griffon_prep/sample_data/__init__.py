"""A small data set that the project draws itself: coloured shapes, and annotations of every task.

It needs no download and no licence, and what its annotations say is true by construction. The same seed and number of
pictures give the same bytes (with the same Pillow).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import orjson

from griffon_prep.sample_data import ccmd, llava
from griffon_prep.sample_data.paint import encode
from griffon_prep.sample_data.scene import Scene, scene

__all__ = ["write_sample_data"]

_PICTURES = "pictures"
_CAPTIONS = "llava/captions.json"
_TEXTS = "llava/text_only.jsonl"
_CCMD: dict[str, Callable[[Scene], list[dict[str, Any]]]] = {
    "ccmd/det.jsonl": ccmd.det_records,
    "ccmd/randdet.jsonl": ccmd.randdet_records,
    "ccmd/reg.jsonl": ccmd.reg_records,
    "ccmd/vg.jsonl": ccmd.vg_records,
    "ccmd/visj.jsonl": ccmd.visj_records,
}
_MANIFEST = f"""\
# Sample data: shapes drawn by `griffon-prep sample-data`.
# Each line: TAG & annotation & folder of pictures. The paths are relative to this file's folder, which is to be given
# as --data-root (default: the working directory).

# Conversations, about a picture and without one.
LAZY_caption & {_CAPTIONS} & {_PICTURES}
LAZY_text & {_TEXTS} & {_PICTURES}

# Detection: the categories in a picture, and categories of which some are not in it.
DET_shapes & ccmd/det.jsonl & {_PICTURES}
RANDDET_shapes & ccmd/randdet.jsonl & {_PICTURES}

# Referring expressions, grounding, visual search.
REG_shapes & ccmd/reg.jsonl & {_PICTURES}
VG_shapes & ccmd/vg.jsonl & {_PICTURES}
VISJ_shapes & ccmd/visj.jsonl & {_PICTURES}
"""


def write_sample_data(out: Path, *, seed: int, images: int) -> Path:
    """Writes the pictures, the annotations and a manifest that names them.

    Args:
        out: the folder to fill; made if need be.
        seed: of all draws. A picture depends on the seed and its number only.
        images: how many pictures; three and more show all codings, two and more all forms of annotation.

    Returns:
        The path of the manifest, which is written last.

    Raises:
        ValueError: `out` is a file or a folder that is not empty, or `images` is below 1.
    """
    if images < 1:
        raise ValueError(f"sample data of {images} pictures: expected 1 or more; give --images 1 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ValueError(f"{out}: {what}, expected a new or an empty folder; name another one, or remove it first")
    with ExitStack() as stack:
        files = {name: stack.enter_context(_opened(out / name)) for name in (_CAPTIONS, _TEXTS, *_CCMD)}
        files[_CAPTIONS].write(b"[\n")
        for number in range(images):
            pictured = scene(seed, number)
            _write_picture(out / _PICTURES / pictured.image_path, pictured)
            captions = b",\n".join(orjson.dumps(record) for record in llava.caption_records(pictured))
            files[_CAPTIONS].write((b",\n" if number else b"") + captions)
            _write_lines(files[_TEXTS], [llava.text_record(seed, number)])
            for name, records in _CCMD.items():
                _write_lines(files[name], records(pictured))
        files[_CAPTIONS].write(b"\n]\n")
    manifest = out / "manifest.txt"
    manifest.write_bytes(_MANIFEST.encode())
    return manifest


def _opened(path: Path) -> IO[bytes]:
    """A new file for writing, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _write_picture(path: Path, pictured: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pictured))


def _write_lines(file: IO[bytes], records: list[dict[str, Any]]) -> None:
    """Appends records to a JSONL file."""
    file.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
