"""Reads an annotation as a build does: its format found, scanned, and every record by its number."""

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from griffon_prep.readers import FORMATS, annotation_in, find_format
from griffon_prep.readers.base import AnnotationFiles, Scan
from griffon_prep.records import Record, Rejected
from griffon_prep.sources.compressed import opened
from griffon_prep.sources.resolve import companions_of


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
    result, scan = read_source(annotation, task)
    return result, scan.vocabulary


def read_source(annotation: Path, task: str, **options: str) -> tuple[list[Record | tuple[str, str]], Scan]:
    """All records of a source, or why not, and what scanning found; its companions lie beside the annotation."""
    annotation = annotation_in(annotation)
    work = Path(tempfile.mkdtemp(prefix=f"work of {task} ", dir=annotation.parent))
    name = find_format(partial(opened, annotation), str(annotation), task, options)
    inputs = AnnotationFiles(
        annotation=annotation,
        companions=companions_of(annotation, name, options),
        task=task,
        options=options,
        work=work,
    )
    scan = FORMATS[name].scan(inputs)
    reader = FORMATS[name].Reader(inputs)
    result: list[Record | tuple[str, str]] = []
    for record_no in range(scan.records):
        try:
            result.append(reader.read(record_no))
        except Rejected as rejected:
            result.append((rejected.reason, rejected.detail))
    return result, scan
