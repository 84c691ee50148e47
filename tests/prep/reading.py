"""Reads an annotation as a build does: its format found, scanned, and every record by its number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from griffon_prep.readers import FORMATS, find_format, open_reader
from griffon_prep.records import Record, Rejected


def read_all(folder: Path, task: str, lines: Sequence[Any]) -> list[Record | tuple[str, str]]:
    """The records of a JSONL file of these lines (values, or text as it is); reason and detail for a rejected one."""
    return read_file(write_lines(folder, lines), task)[0]


def write_lines(folder: Path, lines: Sequence[Any]) -> Path:
    path = folder / "a.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def read_file(annotation: Path, task: str) -> tuple[list[Record | tuple[str, str]], tuple[str, ...]]:
    """All records of a file, or why not, and the names that negatives are drawn from."""
    work = annotation.parent / f"work of {task}"
    work.mkdir()
    name = find_format(annotation, task, {})
    count, vocabulary = FORMATS[name].scan(annotation, task, {}, work)
    reader = open_reader(name, annotation, task, {}, work)
    found: list[Record | tuple[str, str]] = []
    for record_no in range(count):
        try:
            found.append(reader.read(record_no))
        except Rejected as rejected:
            found.append((rejected.reason, rejected.detail))
    return found, vocabulary
