"""COCO's JSON, `{images, annotations, categories}`, as a stream: pictures, boxes and categories in the file's order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from griffon_prep.readers.fields import NO_ID, id_of, is_number, short
from griffon_prep.readers.json_members import decoded_elements, enter_array, members, skip_value
from griffon_prep.readers.json_records import parse_json, parse_placed
from griffon_prep.readers.json_spans import Elements, Spans, Window
from griffon_prep.records import Rejected
from griffon_shards.errors import DataError

CROWD, NO_BOX = 1, 2
"""Flags of a row of `BOX_ROW`: a crowd; `bbox` is not four numbers, or `iscrowd` not one."""

BOX_ROW = np.dtype([("id", "<i8"), ("image_id", "<i8"), ("category_id", "<i8"), ("xywh", "<f8", (4,)), ("flags", "u1")])

_Id = Annotated[int, msgspec.Meta(gt=-(1 << 62), lt=1 << 62)]  # the widest bounds it takes; others go one by one


class _Annotation(msgspec.Struct, gc=False):
    """What is read of an annotation in good order."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    id: _Id = NO_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Some elements of `images`: where they lie in the file, and what they hold; None for one that does not parse."""

    spans: Spans
    values: Sequence[Any]

    @property
    def ids(self) -> NDArray[np.int64]:
        """Their ids, `NO_ID` where there is none."""
        given: list[Any] = [value.get("id") if isinstance(value, dict) else None for value in self.values]
        if not {int}.issuperset(map(type, given)) or any(abs(number) >> 63 for number in given):
            given = list(map(id_of, given))
        return np.array(given, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Some elements of `annotations`, of dtype `BOX_ROW`, shape [elements]."""

    rows: NDArray[np.void]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """The elements of `categories`: names by id; those without an id or a name are left out."""

    names: dict[int, str]


def read_coco(path: Path) -> Iterator[Pictures | Boxes | Categories]:
    """The content of a file in pieces, in its order.

    Raises:
        DataError: the file is not of this make, damaged, or cut short.
    """
    with path.open("rb") as file:
        window = Window(file, str(path))
        window.skip_blanks()
        found = set()
        for key in members(window):
            found.add(key)
            if key == "images":
                yield from map(_pictures, enter_array(window, key))
            elif key == "annotations":
                yield from (Boxes(rows=rows) for rows in _box_rows(enter_array(window, key)))
            elif key == "categories":
                yield Categories(names=_category_names(enter_array(window, key), window.name))
            else:
                skip_value(window)
        window.expect_end("object")
    if missing := {"images", "annotations", "categories"} - found:
        raise DataError(f"{path}: has no {', '.join(sorted(missing))}; expected COCO's images, annotations, categories")


def _pictures(spans: Spans) -> Pictures:
    try:
        values = parse_json(_joined(spans))
    except Rejected:
        values = []
    if len(values) != spans.starts.size:  # one of them is no JSON
        values = list(map(_parsed_or_none, spans.texts()))
    return Pictures(spans=spans, values=values)


def _parsed_or_none(text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return parse_json(text)
    except Rejected:
        return None


def _category_names(elements: Elements, file: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, name in chain.from_iterable(_names(spans, file) for spans in elements):
        if names.setdefault(number, name) != name:
            raise DataError(f"{file}: category {number} is both {short(names[number])} and {short(name)}")
    return names


def _names(spans: Spans, file: str) -> Iterator[tuple[int, str]]:
    for value in _each_parsed(spans, file, "a category"):
        fields = value if isinstance(value, dict) else {}
        number, name = id_of(fields.get("id")), fields.get("name")
        if number != NO_ID and isinstance(name, str) and name.strip():
            yield number, name.strip()


def _box_rows(elements: Elements) -> Iterator[NDArray[np.void]]:
    decoder = msgspec.json.Decoder(list[_Annotation])

    def decode(text: bytes) -> list[_Annotation]:
        try:
            text.isascii() or text.decode()  # the decoder does not look into what it passes over
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None
        return decoder.decode(text)

    for found in decoded_elements(elements, decode):
        if isinstance(found, Spans):
            yield _rows_one_by_one(found, elements.window.name)
            continue
        rows = np.empty(len(found), BOX_ROW)
        rows["id"] = [annotation.id for annotation in found]
        rows["image_id"] = [annotation.image_id for annotation in found]
        rows["category_id"] = [annotation.category_id for annotation in found]
        corners = chain.from_iterable([annotation.bbox for annotation in found])  # flat: three times as fast
        rows["xywh"] = np.fromiter(corners, np.float64, 4 * len(found)).reshape(-1, 4)
        rows["flags"] = [annotation.iscrowd != 0 for annotation in found]  # True is CROWD
        yield rows


def _rows_one_by_one(spans: Spans, name: str) -> NDArray[np.void]:
    """The rows of annotations of which at least one is not in good order."""
    rows = np.zeros(spans.starts.size, BOX_ROW)
    for row, value in zip(rows, _each_parsed(spans, name, "an annotation"), strict=True):
        fields = value if isinstance(value, dict) else {}
        for key in ("id", "image_id", "category_id"):
            row[key] = id_of(fields.get(key))
        crowd = fields.get("iscrowd") or 0
        row["flags"] = CROWD if crowd else 0
        box = fields.get("bbox")
        try:
            if not isinstance(crowd, int | float):
                raise ValueError
            if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
                raise ValueError
            row["xywh"] = list(map(float, box))
        except (ValueError, OverflowError):
            row["flags"] |= NO_BOX
    return rows


def _each_parsed(spans: Spans, file: str, what: str) -> Iterator[Any]:
    """The values of elements that are no records: one that is no JSON is damage of the file."""
    for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
        try:
            yield parse_placed(text, spans.place, start)
        except Rejected as rejected:
            raise DataError(
                f"{file}: {what} is no JSON at {rejected.detail}; mend the file there, or fetch it again"
            ) from None


def _joined(spans: Spans) -> bytes:
    return b"[%b]" % spans.data[int(spans.starts[0]) : int(spans.ends[-1])] if spans.starts.size else b"[]"
