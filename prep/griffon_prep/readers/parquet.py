"""The `parquet` format: conversations in Parquet files with the images inside, as Hugging Face publishes data sets.

The annotation is a file or a folder of files, read in the order of their names. Rows are copied once, a row group at a
time, into the work folder: as JSONL, which `grounding_jsonl` reads, and a file of all images. A row group, which may
hold a thousand images, would otherwise have to be decoded for each record.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from griffon_prep.readers import grounding_jsonl
from griffon_prep.readers.base import AnnotationFiles, Head, Scan
from griffon_prep.readers.fields import short
from griffon_prep.readers.folders import files_below
from griffon_prep.readers.jsonscan.records import JsonRecords
from griffon_prep.readers.llava import FIELDS_OF_FILES, may_show
from griffon_prep.records import Record, Rejected
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import whole_file

TASKS = grounding_jsonl.TASKS
OPTIONS = grounding_jsonl.OPTIONS
COMPANIONS = ()
EXAMPLES = {
    "train-00000-of-00001.parquet": """\
[{"id": "1", "image": {"bytes": null, "path": "coco/000000000001.jpg"}, "conversations": [
  {"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}], "objects": null},
 {"id": "2", "image": {"bytes": null, "path": "coco/000000000002.jpg"}, "conversations": [
  {"from": "human", "value": "<image>\\nFind the <ref-object>."}, {"from": "gpt", "value": "<bbox>"}],
  "objects": {"ref": ["cat"], "bbox": [[10, 20, 110, 220]]}}]""",
}
_ENDINGS = frozenset({".parquet"})
_ROWS, _IMAGES, _TABLE = "rows.jsonl", "images.bin", "spans.bin"
_CONVERSATIONS = ("conversations", "messages")
_IMAGES_OF_ROW = (
    "images in the file"  # added to each row: position and size of images, and whether they lack a name, by name
)
_BATCH = 16  # rows that are decoded at once


def recognises(head: Head) -> bool:
    """Whether a file or folder with this beginning has this format."""
    return head.member == "parquet"


def scan(inputs: AnnotationFiles) -> Scan:
    """Copy the rows and images into the work folder, and scan the rows.

    Raises:
        SettingsError: pyarrow is not installed, or there is no column of conversations.
        DataError: a file is damaged.
    """
    with whole_file(inputs.work / _ROWS) as rows, whole_file(inputs.work / _IMAGES) as images:
        for file in _files(inputs.annotation):
            for row_no, row in enumerate(_rows(file)):
                rows.write(_line(row, f"row {row_no} of {file.name}", images))
    try:
        return grounding_jsonl.scan(_of_rows(inputs))
    except (SettingsError, DataError) as error:
        raise type(error)(str(error).replace(str(inputs.work / _ROWS), str(inputs.annotation))) from None


def _of_rows(inputs: AnnotationFiles) -> AnnotationFiles:
    return replace(inputs, annotation=inputs.work / _ROWS)


def _files(annotation: Path) -> list[Path]:
    if not annotation.is_dir():
        return [annotation]
    return [annotation / name for name in files_below(annotation, _ENDINGS)]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with the columns that are read."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SettingsError(
            f"{file}: reading Parquet needs pyarrow; install it with `pip install 'griffon-pipeline[parquet]'`"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as parquet:
            columns = _columns(parquet.schema_arrow.names, file)
            _check_images(parquet.schema_arrow, columns, file)
            read = 0
            for group in range(parquet.num_row_groups):
                batches = parquet.iter_batches(_BATCH, row_groups=[group], columns=columns, use_threads=False)
                for batch in batches:
                    read += batch.num_rows
                    yield from batch.to_pylist()
            if read != parquet.metadata.num_rows:  # pyarrow reads some damaged pages as empty ones
                raise _damaged(file, f"{read:,} rows instead of {parquet.metadata.num_rows:,}")
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(file, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(file, error) from None  # pyarrow's error for a page that cannot be decoded


def _damaged(file: Path, error: Exception | str) -> DataError:
    what = str(error).partition("\n")[0][:200]
    return DataError(f"{file}: damaged or truncated, cannot be read as Parquet ({what}); download it again")


def _columns(names: list[str], file: Path) -> list[str]:
    if not set(_CONVERSATIONS) & set(names):
        raise SettingsError(
            f"{file}: has no column {' or '.join(_CONVERSATIONS)}; its columns are {', '.join(names[:20])}; expected "
            "conversations as in LLaVA's files"
        )
    return [name for name in names if name in (*_CONVERSATIONS, "objects", *FIELDS_OF_FILES) or may_show(name)]


def _check_images(schema: Any, columns: list[str], file: Path) -> None:  # noqa: ANN401 - pyarrow has no types
    """Check that images are in columns that are read: a record without its image would be one of text alone."""
    types = {name: str(schema.field(name).type) for name in schema.names}
    images = [name for name, kind in types.items() if "binary" in kind]
    if images and not set(images) & set(columns):
        raise SettingsError(
            f"{file}: the column {images[0]} has bytes and is not read; if they are images, rename it to image"
        )


def _line(row: Mapping[str, Any], name: str, images: BinaryIO) -> bytes:
    """Return a row as a line of JSON, and copy its images, of which the line has the names."""
    places: dict[str, tuple[int, int, bool]] = {}
    fields: dict[str, Any] = {column: _plain(value, name, images, places) for column, value in row.items()}
    for column in _CONVERSATIONS:
        if isinstance(fields.get(column), str):
            try:
                fields[column] = orjson.loads(fields[column])
            except orjson.JSONDecodeError:
                continue  # it is not a list, so the row is rejected
    fields = {column: value for column, value in fields.items() if value is not None}
    return json.dumps({**fields, _IMAGES_OF_ROW: places}, default=short).encode() + b"\n"


def _plain(value: object, name: str, images: BinaryIO, places: dict[str, tuple[int, int, bool]]) -> object:
    """Return a cell without the bytes of images, which are copied; the name of an image stands in their place."""
    plain = partial(_plain, name=name, images=images, places=places)
    if isinstance(value, bytes):
        return plain({"bytes": value, "path": None})
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("bytes"), bytes) and value.keys() <= {"bytes", "path"}:
        path = value.get("path") or f"{name}{f', image {len(places)}' if places else ''}"
        places[path] = (images.tell(), len(value["bytes"]), not value.get("path"))
        images.write(value["bytes"])
        return path
    if value.keys() == {"bytes", "path"}:
        return value["path"]
    return {key: plain(item) for key, item in value.items()}


class Reader:
    """Reads one scanned `parquet` source."""

    def __init__(self, inputs: AnnotationFiles) -> None:
        self._inputs = _of_rows(inputs)
        self._records = JsonRecords(inputs.work / _ROWS, inputs.work / _TABLE)
        self._images = (inputs.work / _IMAGES).open("rb")

    def read(self, record_no: int) -> Record:
        """Return the record with this number. Raises Rejected if it cannot be used."""
        fields, part = self._records[record_no]
        places = fields.pop(_IMAGES_OF_ROW)
        record = grounding_jsonl.record_of(fields, part, record_no, self._inputs)
        if record.image_path not in places:
            return record
        offset, size, unnamed = places[record.image_path]
        data = os.pread(self._images.fileno(), size, offset)
        if not data:
            raise Rejected("picture_unreadable", f"{record.image_path}: the image has no bytes")
        return replace(record, image_bytes=data, image_unnamed=unnamed)
