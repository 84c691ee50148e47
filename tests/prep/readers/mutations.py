"""Files spoilt in seeded ways, and what a build would make of them: samples, rejected records or an error."""

import copy
import json
import pickle
import posixpath
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest

from griffon_prep.build.sample_maker import SampleMaker
from griffon_prep.images import absolute_root
from griffon_prep.readers import FORMATS, find_format
from griffon_prep.readers.base import AnnotationFiles
from griffon_prep.readers.jsonscan import members as json_members
from griffon_prep.readers.jsonscan import spans as json_spans
from griffon_prep.records import Rejected
from griffon_prep.render.settings import RenderSettings, Source
from griffon_prep.sources.compressed import opened
from griffon_prep.sources.resolve import companions_of
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Sample

from ..rendering import BARE

_TOO_LARGE = "@1e999@"  # json.dumps cannot write it
_NUMBERS: list[Any] = [0, -1, 1, 7, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, 0.5, -0.5, 150.25, 1e308, -0.0]
_NUMBERS += [float("nan"), float("inf"), float("-inf"), _TOO_LARGE]
_TEXTS = ["", " ", "a", "7", "7.jpg", "x/8.jpg", "../7.jpg", "/", "\0", "train", "val", "\ud800", "caf\xe9 \u2028", "0"]
_TEXTS += ["<image>", "a <image> b", "[0.100,0.200,0.300,0.400]", "x-[0.100,0.200,0.300,0.400]&y", '"}, {"', "\\"]
_OTHERS: list[Any] = [None, True, False, [], {}, [[]], [1], [1, 2, 3, 4], [[1, 2, 3, 4]], [7], ["a"], {"a": 1}, [None]]
_NAMES = ["id", "image_id", "bbox", "bboxes", "width", "file_name", "caption", "sent", "phrase", "iscrowd", "x", ""]
_MARKS = b'{}[],:"\\ \n\x00-.0129eE\xff\xc3'
_PIECES = (64, 512, 1 << 20, 1 << 20)


def spoilt_value(random: Random, value: Any) -> Any:  # noqa: ANN401 - JSON
    """The value with one to three changes in it, anywhere; the value itself stays."""
    whole = [copy.deepcopy(value)]
    for _ in range(random.randint(1, 3)):
        places = _places(whole)
        container, key = random.choice(places)
        other, other_key = random.choice(places)
        change = random.randrange(9)
        if change == 0 and container is not whole:
            del container[key]
        elif change == 1 and isinstance(container, list) and container is not whole:
            container.insert(random.randint(0, len(container)), copy.deepcopy(container[key]))
        elif change == 2 and isinstance(container, list):
            random.shuffle(container)
        elif change == 3 and isinstance(container, dict):
            container[random.choice([*_NAMES, *container])] = container.pop(key)
        elif change == 4 and container is not whole:
            container[key] = copy.deepcopy(other[other_key])  # such as an id, a box or a name of another
        elif change == 5 and isinstance(container[key], int | float):
            container[key] *= random.choice([-1, 0, 3, 10**20])
        else:
            container[key] = copy.deepcopy(random.choice(random.choice([_NUMBERS, _TEXTS, _OTHERS])))
    return whole[0]


def _places(whole: list[Any]) -> list[tuple[Any, Any]]:
    """Every place in a value, as its container and key."""
    result: list[tuple[Any, Any]] = []
    containers: list[Any] = [whole]
    while containers:
        container = containers.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        result += [(container, key) for key in keys]
        containers += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return result


def spoilt_bytes(random: Random, data: bytes) -> bytes:
    """The bytes with one place spoilt: cut there, or a byte changed, put in or left out."""
    offset = random.randrange(len(data))
    change = random.randrange(5)
    if change == 0:
        return data[:offset]
    mark = bytes([random.choice(_MARKS)])
    if change == 1:
        mark = bytes([data[offset] ^ (1 << random.randrange(8))])
    return data[:offset] + (b"" if change == 2 else mark) + data[offset + (change != 3) :]


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """A file with several faults in it.

    Attributes:
        data: the file.
        value: what it holds if each of its elements is read alone; None for one that is not JSON.
        untouched: the same, with None for every element that has a fault in it.
    """

    data: bytes
    value: Any
    untouched: Any


_Piece = tuple[str, int | None, bytes]  # member of the object, number of the element or None between them, text


def several_faults(random: Random, value: Any) -> Spoilt:  # noqa: ANN401 - JSON
    """The file of a list, or of an object of lists, with two or three bytes changed, put in or left out, anywhere."""
    pieces = _pieces(value, random.choice([None, None, 1]))
    faulty = list(pieces)
    for _ in range(random.choice([2, 2, 3])):
        at = random.choices(range(len(faulty)), [max(len(text), 12) for _, _, text in faulty])[0]
        member, number, text = faulty[at]
        marks = [offset for offset, byte in enumerate(text) if byte in b'{}[],:"']  # where a fault does most
        offset = random.choice(marks if marks and random.random() < 0.2 else range(len(text) + 1))
        mark = random.choice([b'"', bytes([random.choice(_MARKS)]), b"%d" % random.randrange(10), b"x", b" "])
        change = random.randrange(4)
        faulty[at] = member, number, text[:offset] + (b"" if change == 0 else mark) + text[offset + (change < 2) :]
    untouched = [new if new == old else (*new[:2], b"") for new, old in zip(faulty, pieces, strict=True)]
    return Spoilt(
        data=b"".join(text for _, _, text in faulty),
        value=_elements(faulty, value),
        untouched=_elements(untouched, value),
    )


def _pieces(value: Any, indent: int | None) -> list[_Piece]:  # noqa: ANN401 - JSON
    blank = "" if indent is None else "\n"
    result: list[_Piece] = []
    for member, items in value.items() if isinstance(value, dict) else [("", value)]:
        if member:
            result.append((member, None, f'{"," if result else "{"}{blank}"{member}": '.encode()))
        if not isinstance(items, list):
            result.append((member, None, as_json(items)))
            continue
        for index, item in enumerate(items):
            result.append((member, None, f",{blank or ' '}".encode() if index else b"["))
            result.append((member, index, json.dumps(item, indent=indent).encode()))
        result.append((member, None, b"]"))
    return [*result, ("", None, b"}")] if isinstance(value, dict) else result


def _elements(pieces: Sequence[_Piece], like: Any) -> Any:  # noqa: ANN401 - JSON
    result: dict[str, list[Any]] = {member: [] for member in like} if isinstance(like, dict) else {"": []}
    for member, piece, text in pieces:
        if piece is not None:
            result[member] += [None]
            with suppress(ValueError, RecursionError):
                result[member][-1] = from_json(text.strip(b", \n"))  # two commas in a row are one
    return result if isinstance(like, dict) else result[""]


def as_json(value: object, random: Random | None = None) -> bytes:
    indent = random.choice([None, None, 1]) if random else None
    return json.dumps(value, indent=indent).replace(f'"{_TOO_LARGE}"', "1e999").encode()


def as_lines(value: object, _random: Random | None = None) -> bytes:
    return b"\n".join(map(as_json, value)) if isinstance(value, list) else as_json(value)


def as_pickle(value: object, random: Random | None = None) -> bytes:
    return pickle.dumps(_with_infinity(value), random.randrange(6) if random else 2)


def _with_infinity(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _with_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_infinity(item) for item in value]
    return float("inf") if value == _TOO_LARGE else value


def from_json(data: bytes) -> Any:  # noqa: ANN401 - JSON
    return json.loads(data.decode())


def from_lines(data: bytes) -> list[Any]:
    """A line that is not JSON is None, which is not a record either."""
    result = []
    for line in data.split(b"\n"):
        try:
            result += [from_json(line)] if line.strip(b" \t\r\n") else []
        except (ValueError, RecursionError):
            result.append(None)
    return result


class _NothingCalled(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - never comes back
        raise pickle.UnpicklingError(f"{module}.{name}")


def from_pickle(data: bytes) -> Any:  # noqa: ANN401 - whatever it holds
    """Use the library's reader in Python: the one in C allocates memory for the memo's largest number."""
    try:
        return _NothingCalled(BytesIO(data), encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class Made:
    """The outcome of a source: its number of records, and the samples and numbers of those that were not rejected."""

    records: int
    samples: Sequence[Sample]
    numbers: Sequence[int]


def made_of(folder: Path, files: Mapping[str, bytes], task: str, random: Random) -> Made | str:
    """Build a source, whose first file is the annotation; return the message if the build refuses it.

    Whatever is neither a sample, nor a rejected record, nor an error that a user is meant to see, is raised.
    """
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return made_from(folder, folder / next(iter(files)), task, random)


def made_from(folder: Path, annotation: Path, task: str, random: Random) -> Made | str:
    """Build a source whose files are written, with the folder as image root, as `made_of` does."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _descriptor: None)
        patch.setattr(json_spans, "_CHUNK", random.choice(_PIECES))
        patch.setattr(json_members, "_PIECE", random.choice(_PIECES))
        try:
            return _made(folder, annotation, task, work)
        except (DataError, SettingsError) as error:
            assert str(error)
            return str(error)


def _made(folder: Path, annotation: Path, task: str, work: Path) -> Made:
    name = find_format(partial(opened, annotation), str(annotation), task, {})
    companions = companions_of(annotation, name, {})
    inputs = AnnotationFiles(annotation=annotation, companions=companions, task=task, options={}, work=work)
    scan = FORMATS[name].scan(inputs)
    assert scan.round_keys is None or len(scan.round_keys) == scan.records
    if not scan.records:
        raise DataError("has no records")
    maker = SampleMaker(
        reader=FORMATS[name].Reader(inputs),
        rounds=None,
        source=Source(tag=task, task=task, vocabulary=scan.vocabulary),
        settings=RenderSettings(seed=0, boxes="text", det_categories=80, variants=1, templates=BARE, check="none"),
        annotation_name="a",
        image_root=absolute_root(folder),
    )
    samples, numbers = [], []
    for i in range(scan.records):
        try:
            samples.append(maker.make(i)[0])
            numbers.append(i)
        except Rejected as rejected:
            assert rejected.detail
            rejected.detail.encode()  # it goes into a file
    return Made(records=scan.records, samples=samples, numbers=numbers)


def box_text(corners: Sequence[float], width_px: float, height_px: float) -> str:
    """A box as an answer has it; empty for one that may not be written."""
    x1, y1, x2, y2 = map(float, corners)
    if not all(abs(corner) < float("inf") for corner in (x1, y1, x2, y2)) or x1 > x2 or y1 > y2:
        return ""
    fractions = [x1 / width_px, y1 / height_px, x2 / width_px, y2 / height_px]
    inside = [round(fraction, 3) if 0 < fraction < 1 else float(fraction >= 1) for fraction in fractions]
    if inside[2] == 0 or inside[3] == 0 or inside[0] == 1 or inside[1] == 1:
        return ""
    return "[{:.3f},{:.3f},{:.3f},{:.3f}]".format(*inside)


def answer_of(boxes: Sequence[tuple[str, str]]) -> str:
    """Names and boxes, each once, from left to right, then top to bottom, without those that may not be written."""
    written = dict.fromkeys((name, box) for name, box in boxes if box)
    return "&".join(f"{name}-{box}" for name, box in sorted(written, key=lambda item: item[1].split(",")[:2]))


def file_of(path: str) -> str:
    """The last part of a path: images are found by it."""
    return posixpath.basename(posixpath.normpath(path.strip()))
