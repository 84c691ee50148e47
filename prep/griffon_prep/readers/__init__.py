"""Annotation readers: one module per format, each implementing `Format`, collected in one dict.

A file, which may be larger than memory, is scanned once. The scan writes an index into a work folder, from which any
process can read any record on its own.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from griffon_prep.readers import (
    ccmd,
    coco,
    flickr30k,
    grounding_jsonl,
    labelme,
    llava,
    mdetr,
    openimages,
    parquet,
    refcoco,
    visual_genome,
    voc,
    yolo,
)
from griffon_prep.readers.base import Format
from griffon_prep.readers.sniff import described, file_heads, folder_heads, text_heads
from griffon_shards.support.errors import SettingsError

FORMATS: dict[str, Format] = {
    "llava": llava,
    "ccmd": ccmd,
    "mdetr": mdetr,
    "coco": coco,
    "visual_genome": visual_genome,
    "refcoco": refcoco,
    "yolo": yolo,
    "flickr30k": flickr30k,
    "voc": voc,
    "labelme": labelme,
    "openimages": openimages,
    "grounding-jsonl": grounding_jsonl,
    "parquet": parquet,
}
"""Formats by name; the first one that recognises a file reads it."""

FOLDERS = frozenset({"flickr30k", "voc", "labelme"})
"""Formats of which the annotation is a folder."""

FILES_OR_FOLDERS = frozenset({"parquet"})
"""Formats of which the annotation is a file or a folder of such files."""

FURTHER_INPUTS: dict[str, Callable[[Path, Mapping[str, str]], dict[str, Path]]] = {
    "yolo": yolo.further_inputs,
    "flickr30k": flickr30k.further_inputs,
    "voc": voc.further_inputs,
    "openimages": openimages.further_inputs,
}
"""Functions that find the further files and folders of formats where these have no fixed names."""

_LEADING = ("data.y*ml", "dataset.y*ml", "*.y*ml", "*annotations-bbox.csv*")

COMMON_OPTIONS = ("format", "weight", "limit", "orientation", "part", "exclude", "image_data")
"""Manifest options that every format accepts."""

ROUNDS_TASKS = ("REG", "VG")
"""Tasks that accept the manifest option `rounds=`."""


def annotation_in(path: Path) -> Path:
    """Return the file that leads to everything else in a folder, such as `data.yaml`; otherwise the path itself."""
    if path.is_dir():
        for pattern in _LEADING:
            files = sorted(path.glob(pattern))
            if len(files) == 1:
                return files[0]
    return path


def find_format(
    opened: Callable[[], AbstractContextManager[BinaryIO]], name: str, task: str, options: Mapping[str, str]
) -> str:
    """Return the name of an annotation's format: the one that the manifest names, or else detected from the content.

    Args:
        opened: opens the annotation at its start, decompressed.
        name: the file's name, for error messages.
        task: the task that the records are used for.
        options: the options of the manifest line; `format=` is used here.

    Raises:
        SettingsError: the format is unknown, cannot be detected, does not support the task, or does not accept one of
            the options.
        DataError: the file is empty or damaged.
    """
    format_name = options.get("format") or _recognise(opened, name)
    if format_name not in FORMATS:
        raise SettingsError(f"unknown format {format_name!r}; format= takes one of {', '.join(FORMATS)}")
    supported = FORMATS[format_name].TASKS
    if task not in supported:
        raise SettingsError(
            f"{name}: format {format_name} supports {', '.join(supported)}, not {task}; "
            "start the TAG of the manifest line with one of these tasks"
        )
    if unknown := set(options) - {*COMMON_OPTIONS, *FORMATS[format_name].OPTIONS}:
        raise SettingsError(f"{name}: format {format_name} does not take the option {', '.join(sorted(unknown))}")
    if "rounds" in options and task not in ROUNDS_TASKS:
        raise SettingsError(f"{name}: rounds= is for {' and '.join(ROUNDS_TASKS)}, not {task}")
    return format_name


def _recognise(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> str:
    folder = Path(name).is_dir()
    for head in folder_heads(Path(name)) if folder else chain(text_heads(opened), file_heads(opened, name)):
        for format_name, module in FORMATS.items():
            if module.recognises(head):
                return format_name
    content = "a folder without data.yaml, XML, Parquet or labelme's JSON files" if folder else described(opened, name)
    raise SettingsError(
        f"{name}: the content matches no known format ({', '.join(FORMATS)}): {content}; "
        "see `griffon-prep formats`, or name the format in the manifest with format="
    )
