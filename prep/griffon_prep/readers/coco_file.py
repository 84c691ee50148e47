"""COCO's JSON, `{images, annotations, categories}`, as a stream: pictures, boxes and categories in the file's order."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_prep.readers.fields import NO_ID, PLAIN_ID, id_of, ids_of, is_number, short
from griffon_prep.readers.jsonscan.members import decoded_elements, enter_array, members, skip_value
from griffon_prep.readers.jsonscan.records import parse_json, parse_placed
from griffon_prep.readers.jsonscan.spans import Elements, Spans, Window
from griffon_prep.records import Rejected, is_blank
from griffon_shards.support.errors import DataError

CROWD, NO_BOX, EMPTY = 1, 2, 8
"""Flags of a row of `BOX_ROW`: a crowd; `bbox` is not four numbers, or `iscrowd` not one; no box but the word that
there is nothing (gRefCOCO in MDETR's form), and then none of the other two."""

BOX_ROW = np.dtype(
    [
        ("id", "<i8"),
        ("image_id", "<i8"),
        ("category_id", "<i8"),
        ("xywh", "<f8", (4,)),
        ("spans", "<u4"),
        ("flags", "u1"),
    ]
)
"""What is kept of an annotation: ids as `id_of` gives them, the box, and a checksum of MDETR's `tokens_positive`, the
parts of the caption that the box belongs to, or 0."""

# The widest bounds that it takes for whole numbers; beyond them annotations are read one by one.
_Id = Annotated[int, msgspec.Meta(gt=-PLAIN_ID, lt=PLAIN_ID)] | str | float
_NO_SPANS = msgspec.Raw()
_WITHOUT = {
    "annotations": "COCO's image_info files are lists of pictures alone",
    "categories": "COCO's captions have none, its instances do",
}
_BLANKS = b" \t\r\n"


class _Annotation(msgspec.Struct, gc=False):
    """What is read of an annotation in good order."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    id: _Id | None = None
    tokens_positive: msgspec.Raw = _NO_SPANS
    empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Some elements of `images`: where they lie in the file, and what they hold; None for one that does not parse."""

    spans: Spans
    values: Sequence[Any]

    @property
    def ids(self) -> NDArray[np.int64]:
        """Their ids, `NO_ID` where there is none."""
        return ids_of([value.get("id") if isinstance(value, dict) else None for value in self.values])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Some elements of `annotations`.

    Attributes:
        rows: of dtype `BOX_ROW`, shape [elements].
        faults: for rows flagged `NO_BOX`, by their place among these, what is wrong.
        texts: the category ids among these that are not plain numbers, as they are written.
    """

    rows: NDArray[np.void]
    faults: Mapping[int, str] = field(default_factory=dict)
    texts: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """The elements of `categories`: names and supercategories by id; those without an id or a name are left out."""

    names: dict[int, str]
    kinds: dict[int, str]


def read_coco(path: Path) -> Iterator[Images | Boxes | Categories]:
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
                yield from map(_images, enter_array(window, key))
            elif key == "annotations":
                yield from _boxes(enter_array(window, key))
            elif key == "categories":
                yield _categories(enter_array(window, key), window.name)
            else:
                skip_value(window)
        window.expect_end("object")
    if missing := {"images", "annotations", "categories"} - found:
        hint = "".join(f"; {hint}" for name, hint in _WITHOUT.items() if name in missing)
        expected = "expected COCO's images, annotations, categories"
        raise DataError(f"{path}: has no {', '.join(sorted(missing))}; {expected}{hint}")


def _images(spans: Spans) -> Images:
    try:
        values = parse_json(_joined(spans))
    except Rejected:
        values = []
    if len(values) != spans.starts.size:  # one of them is no JSON
        values = list(map(_parsed_or_none, spans.texts()))
    return Images(spans=spans, values=values)


def _parsed_or_none(text: bytes) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return parse_json(text)
    except Rejected:
        return None


def _categories(elements: Elements, file: str) -> Categories:
    names: dict[int, str] = {}
    kinds: dict[int, str] = {}
    for number, name, kind in chain.from_iterable(_named(spans, file) for spans in elements):
        if names.setdefault(number, name) != name:
            where = f" {number}" if number > -PLAIN_ID else ""
            raise DataError(f"{file}: {short(names[number])} and {short(name)} have the same category id{where}")
        if kind:
            kinds[number] = kind
    return Categories(names=names, kinds=kinds)


def _named(spans: Spans, file: str) -> Iterator[tuple[int, str, str]]:
    """Id, name and supercategory (or `""`) of the categories that have the first two."""
    for value in _each_parsed(spans, file, "a category"):
        fields = value if isinstance(value, dict) else {}
        number, name, kind = id_of(fields.get("id")), fields.get("name"), fields.get("supercategory")
        if number != NO_ID and isinstance(name, str) and not is_blank(name):
            yield number, name.strip(), kind if isinstance(kind, str) else ""


def _boxes(elements: Elements) -> Iterator[Boxes]:
    decoder = msgspec.json.Decoder(list[_Annotation])

    def decode(text: bytes) -> list[_Annotation]:
        try:
            text.isascii() or text.decode()  # the decoder does not look into what it passes over
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None
        return decoder.decode(text)

    for found in decoded_elements(elements, decode):
        yield _boxes_one_by_one(found, elements.window.name) if isinstance(found, Spans) else _boxes_in_order(found)


def _boxes_in_order(found: list[_Annotation]) -> Boxes:
    rows = np.zeros(len(found), BOX_ROW)
    rows["id"] = ids_of([annotation.id for annotation in found])
    rows["image_id"] = ids_of([annotation.image_id for annotation in found])
    categories = [annotation.category_id for annotation in found]
    rows["category_id"] = ids_of(categories)
    corners = chain.from_iterable([annotation.bbox for annotation in found])  # flat: three times as fast
    rows["xywh"] = np.fromiter(corners, np.float64, 4 * len(found)).reshape(-1, 4)
    rows["flags"] = [annotation.iscrowd != 0 for annotation in found]  # True is CROWD
    empty = [annotation.empty for annotation in found]
    if any(empty):
        rows["flags"][empty] = EMPTY
    spans = [annotation.tokens_positive for annotation in found]
    if any(spans):
        rows["spans"] = [_checksum(bytes(each)) if each else 0 for each in spans]
    return Boxes(rows=rows, texts=_not_plain(rows["category_id"], categories))


def _boxes_one_by_one(spans: Spans, name: str) -> Boxes:
    """Annotations of which at least one is not in good order."""
    rows = np.zeros(spans.starts.size, BOX_ROW)
    faults: dict[int, str] = {}
    categories: list[Any] = []
    for place, value in enumerate(_each_parsed(spans, name, "an annotation")):
        fields = value if isinstance(value, dict) else {}
        row = rows[place]
        for key in ("id", "image_id", "category_id"):
            row[key] = id_of(fields.get(key))
        categories.append(fields.get("category_id"))
        if "tokens_positive" in fields:
            row["spans"] = _checksum(orjson.dumps(fields["tokens_positive"]))
        if fields.get("empty"):
            row["flags"] = EMPTY
            continue
        row["flags"] = CROWD if fields.get("iscrowd") else 0
        if fault := _fault(fields):
            faults[place] = f"annotation {short(fields.get('id'))}: {fault}"
            row["flags"] |= NO_BOX
        else:
            row["xywh"] = list(map(float, fields["bbox"]))
    return Boxes(rows=rows, faults=faults, texts=_not_plain(rows["category_id"], categories))


def _fault(fields: Mapping[str, Any]) -> str:
    """Why an annotation cannot be used; empty if it can."""
    crowd, box = fields.get("iscrowd") or 0, fields.get("bbox")
    if not isinstance(crowd, int | float):
        return f"iscrowd: expected 0 or 1, got {short(crowd)}"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f"bbox: expected four numbers, got {short(box)}"
    try:
        list(map(float, box))
    except OverflowError:
        return f"bbox: a number of {short(box)} is too large for a box"
    return ""


def _not_plain(ids: NDArray[np.int64], given: Sequence[Any]) -> dict[int, str]:
    """How those ids are written that are hashes."""
    places = np.flatnonzero((ids <= -PLAIN_ID) & (ids != NO_ID)).tolist()
    return {int(ids[place]): short(given[place]) for place in places}


def _checksum(spans: bytes) -> int:
    return zlib.crc32(spans.translate(None, _BLANKS)) or 1


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
