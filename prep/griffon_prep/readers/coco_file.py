"""COCO's JSON, `{images, annotations, categories}`, as a stream: images, boxes and categories in file order."""

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
from griffon_prep.readers.jsonscan.damage import RepeatedKey, check_keys
from griffon_prep.readers.jsonscan.members import decoded_elements, enter_array, members, skip_value
from griffon_prep.readers.jsonscan.records import parse_json, parse_placed
from griffon_prep.readers.jsonscan.spans import Elements, Spans, Window
from griffon_prep.records import Rejected, is_blank
from griffon_shards.support.errors import DataError

CROWD, NO_BOX, EMPTY = 1, 2, 8
"""Flags of a `BOX_ROW`.

`CROWD`: the box is a crowd. `NO_BOX`: `bbox` is not four numbers, or `iscrowd` is not a number. `EMPTY`: the annotation
states that the object is absent (gRefCOCO in MDETR's form); never combined with the other two.
"""

BOX_ROW = np.dtype(
    [
        ("id", "<i8"),
        ("image_id", "<i8"),
        ("category_id", "<i8"),
        ("xywh", "<f8", (4,)),
        ("spans", "<u4"),
        ("tokens", "<u8"),
        ("flags", "u1"),
    ]
)
"""The stored part of an annotation: ids as returned by `id_of`, the box, and of MDETR's `tokens_positive` (the parts of
the caption that the box belongs to) a checksum and the position where `write_tables` puts it, or 0."""

# The widest bounds that msgspec accepts for integers; annotations with larger ids are parsed one by one.
_Id = Annotated[int, msgspec.Meta(gt=-PLAIN_ID, lt=PLAIN_ID)] | str | float
_NO_SPANS = msgspec.Raw()
_WITHOUT = {
    "annotations": "COCO's image_info files list images only",
    "categories": "COCO's captions files have none, its instances files do",
}
_BLANKS = b" \t\r\n"


class _Annotation(msgspec.Struct, gc=False):
    """The fields that are read from a valid annotation."""

    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    id: _Id | None = None
    tokens_positive: msgspec.Raw = _NO_SPANS
    empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Elements of `images`: their positions in the file and their values; None for one that does not parse."""

    spans: Spans
    values: Sequence[Any]

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of the elements; `NO_ID` where missing."""
        return ids_of([value.get("id") if isinstance(value, dict) else None for value in self.values])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """Elements of `annotations`.

    Attributes:
        rows: of dtype `BOX_ROW`, shape [elements].
        tokens: `tokens_positive` of each row as JSON without blanks; empty where missing, or if all rows have none.
        faults: error messages of rows flagged `NO_BOX`, by row index.
        texts: category ids that are hashed, as written in the file, by their hash.
    """

    rows: NDArray[np.void]
    tokens: Sequence[bytes] = ()
    faults: Mapping[int, str] = field(default_factory=dict)
    texts: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """The elements of `categories`: names and supercategories by id; those without an id or a name are skipped."""

    names: dict[int, str]
    kinds: dict[int, str]


def read_coco(path: Path) -> Iterator[Images | Boxes | Categories]:
    """Yield the content of a file piece by piece, in file order.

    Raises:
        DataError: the file has another structure, is damaged, or is truncated.
    """
    with path.open("rb") as file:
        window = Window(file, str(path))
        window.skip_blanks()
        keys = set()
        for key in members(window):
            keys.add(key)
            if key == "images":
                elements = enter_array(window, key)
                yield from (_images(spans, window.name, elements.seen - spans.starts.size) for spans in elements)
            elif key == "annotations":
                yield from _boxes(enter_array(window, key))
            elif key == "categories":
                yield _categories(enter_array(window, key), window.name)
            else:
                skip_value(window)
        window.expect_end("object")
    if missing := {"images", "annotations", "categories"} - keys:
        hint = "".join(f"; {hint}" for name, hint in _WITHOUT.items() if name in missing)
        expected = "expected COCO's images, annotations and categories"
        raise DataError(f"{path}: has no {', '.join(sorted(missing))}; {expected}{hint}")


def _images(spans: Spans, file: str, first: int) -> Images:
    """Parse entries of `images`; `first` is the number of the first one."""
    joined = _joined(spans)
    try:
        values = parse_json(joined)
        check_keys(joined, values)
    except (Rejected, RepeatedKey):
        values = []
    if len(values) != spans.starts.size:  # one of them is damaged
        bounds = enumerate(zip(spans.texts(), spans.starts.tolist(), strict=True), first)
        values = [_parsed_or_none(text, spans, start, file, entry_no) for entry_no, (text, start) in bounds]
    return Images(spans=spans, values=values)


def _parsed_or_none(text: bytes, spans: Spans, start: int, file: str, entry_no: int) -> Any:  # noqa: ANN401
    try:
        return parse_placed(text, spans.place, start, file, f"entry {entry_no} (from 0) of images")
    except Rejected:
        return None


def _categories(elements: Elements, file: str) -> Categories:
    names: dict[int, str] = {}
    kinds: dict[int, str] = {}
    for category_id, name, kind in chain.from_iterable(_named(spans, file) for spans in elements):
        if names.setdefault(category_id, name) != name:
            shown = f" {category_id}" if category_id > -PLAIN_ID else ""
            raise DataError(
                f"{file}: categories {short(names[category_id])} and {short(name)} have the same id{shown}; "
                "give each category an id of its own"
            )
        if kind:
            kinds[category_id] = kind
    return Categories(names=names, kinds=kinds)


def _named(spans: Spans, file: str) -> Iterator[tuple[int, str, str]]:
    """Yield id, name and supercategory (or `""`) of the categories that have an id and a name."""
    for value in _each_parsed(spans, file, "a category"):
        fields = value if isinstance(value, dict) else {}
        category_id, name, kind = id_of(fields.get("id")), fields.get("name"), fields.get("supercategory")
        if category_id != NO_ID and isinstance(name, str) and not is_blank(name):
            yield category_id, name.strip(), kind if isinstance(kind, str) else ""


def _boxes(elements: Elements) -> Iterator[Boxes]:
    decoder = msgspec.json.Decoder(list[_Annotation])

    def decode(text: bytes) -> list[_Annotation]:
        try:
            text.isascii() or text.decode()  # the decoder does not validate values that it skips
        except UnicodeDecodeError as error:
            raise msgspec.DecodeError(str(error)) from None
        annotations = decoder.decode(text)
        if text.count(b'"image_id"') > len(annotations):  # one of them may be two; parsing one by one decides
            raise msgspec.DecodeError("repeated key")
        return annotations

    for part in decoded_elements(elements, decode):
        yield _boxes_one_by_one(part, elements.window.name) if isinstance(part, Spans) else _boxes_at_once(part)


def _boxes_at_once(annotations: list[_Annotation]) -> Boxes:
    rows = np.zeros(len(annotations), BOX_ROW)
    rows["id"] = ids_of([annotation.id for annotation in annotations])
    rows["image_id"] = ids_of([annotation.image_id for annotation in annotations])
    categories = [annotation.category_id for annotation in annotations]
    rows["category_id"] = ids_of(categories)
    numbers = chain.from_iterable([annotation.bbox for annotation in annotations])  # flat: three times as fast
    rows["xywh"] = np.fromiter(numbers, np.float64, 4 * len(annotations)).reshape(-1, 4)
    rows["flags"] = [annotation.iscrowd != 0 for annotation in annotations]  # True is CROWD
    empty = [annotation.empty for annotation in annotations]
    if any(empty):
        rows["flags"][empty] = EMPTY
    token_spans = [annotation.tokens_positive for annotation in annotations]
    tokens = [bytes(text).translate(None, _BLANKS) for text in token_spans] if any(token_spans) else []
    if tokens:
        rows["spans"] = list(map(_checksum, tokens))
    return Boxes(rows=rows, tokens=tokens, texts=_not_plain(rows["category_id"], categories))


def _boxes_one_by_one(spans: Spans, name: str) -> Boxes:
    """Parse annotations one by one, because at least one of them is not valid."""
    rows = np.zeros(spans.starts.size, BOX_ROW)
    faults: dict[int, str] = {}
    categories: list[Any] = []
    tokens: list[bytes] = []
    for index, value in enumerate(_each_parsed(spans, name, "an annotation")):
        fields = value if isinstance(value, dict) else {}
        row = rows[index]
        for key in ("id", "image_id", "category_id"):
            row[key] = id_of(fields.get(key))
        categories.append(fields.get("category_id"))
        tokens.append(_tokens_json(fields["tokens_positive"]) if "tokens_positive" in fields else b"")
        row["spans"] = _checksum(tokens[-1])
        if fields.get("empty"):
            row["flags"] = EMPTY
            continue
        row["flags"] = CROWD if fields.get("iscrowd") else 0
        if fault := _fault(fields):
            faults[index] = f"annotation {short(fields.get('id'))}: {fault}"
            row["flags"] |= NO_BOX
        else:
            row["xywh"] = list(map(float, fields["bbox"]))
    return Boxes(rows=rows, tokens=tokens, faults=faults, texts=_not_plain(rows["category_id"], categories))


def _fault(fields: Mapping[str, Any]) -> str:
    """Return why an annotation cannot be used, or an empty string if it can."""
    crowd, box = fields.get("iscrowd") or 0, fields.get("bbox")
    if not isinstance(crowd, int | float):
        return f"iscrowd: expected 0 or 1, got {short(crowd)}"
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        return f"bbox: expected four numbers, got {short(box)}"
    try:
        list(map(float, box))
    except OverflowError:
        return f"bbox: a number in {short(box)} is too large"
    return ""


def _not_plain(ids: NDArray[np.int64], given: Sequence[Any]) -> dict[int, str]:
    """Return the hashed ids as written in the file, by their hash."""
    indices = np.flatnonzero((ids <= -PLAIN_ID) & (ids != NO_ID)).tolist()
    return {int(ids[index]): short(given[index]) for index in indices}


def _checksum(tokens: bytes) -> int:
    return (zlib.crc32(tokens) or 1) if tokens else 0


def _tokens_json(value: object) -> bytes:
    return orjson.dumps(value).translate(None, _BLANKS)


def _each_parsed(spans: Spans, file: str, what: str) -> Iterator[Any]:
    """Yield the values of elements that are not records; invalid JSON in one of them is an error of the file."""
    for text, start in zip(spans.texts(), spans.starts.tolist(), strict=True):
        try:
            yield parse_placed(text, spans.place, start, file, what)
        except Rejected as rejected:
            raise DataError(
                f"{file}: {what} is not valid JSON at {rejected.detail}; fix the file there, or download it again"
            ) from None


def _joined(spans: Spans) -> bytes:
    return b"[%b]" % spans.data[int(spans.starts[0]) : int(spans.ends[-1])] if spans.starts.size else b"[]"
