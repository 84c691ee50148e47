"""Damage in JSON: contained in the record that has it, or the file is refused with the place; nothing in between."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.readers.jsonscan.damage import first_fault, stands_alone
from griffon_prep.records import Record
from griffon_shards.support.errors import DataError

from ..published import box, coco, picture, ref
from ..reading import read_source
from ..test_mutations import IMAGE_DATA, LINE, WHERE

COUNT = 300
TALKS: list[dict[str, Any]] = [
    {
        "id": i,
        "conversations": [
            {"from": "human", "value": f"question {i}"},
            {"from": "gpt", "value": f"say {i}, [0.1] {{and}} \\frac"},
        ],
    }
    for i in range(COUNT)
]
INDENTS = pytest.mark.parametrize("indent", [None, 0, 1], ids=["in one line", "an element a line", "pretty"])


def array(indent: int | None) -> str:
    return json.dumps(TALKS, indent=indent)


def read(folder: Path, text: str, name: str = "a.json") -> list[Record | tuple[str, str]]:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return read_source(path, "LAZY")[0]


def place_of(text: str, mark: str) -> str:
    """Where a mark stands in a file."""
    start = text.encode().index(mark.encode())
    return f"line {text.encode()[:start].count(10) + 1}, byte {start}"


def quote_in(text: str, *numbers: int) -> str:
    """A quote too many in the answers of these records."""
    for number in numbers:
        text = text.replace(f"say {number},", f'say "{number},')
    return text


SWALLOWING: dict[str, tuple[Callable[[str], str], int]] = {
    "quotes in two records": (lambda text: quote_in(text, 100, 290), 100),
    "quotes in neighbours": (lambda text: quote_in(text, 100, 101), 100),
    "quotes in the first and the last": (lambda text: quote_in(text, 0, COUNT - 1), 0),
    "quotes in three": (lambda text: quote_in(text, 100, 150, 290), 100),
    "one quote": (lambda text: quote_in(text, 100), 100),
    "one quote in the last": (lambda text: quote_in(text, COUNT - 1), COUNT - 1),
    "a lost quote": (lambda text: text.replace('"say 100,', "say 100,"), 100),
    "a backslash before a quote": (lambda text: text.replace('"question 100"', '"question 100\\"'), 100),
    "a lost brace": (lambda text: re.sub(r'\{(\s*"id": 100,)', r"\1", text), 100),
    "a brace too many": (lambda text: text.replace('"id": 100,', '"id": {100,'), 100),
    "a closing brace too many": (lambda text: text.replace('"id": 100,', '"id": 100},'), 101),
    "a bracket for a brace": (lambda text: re.sub(r"\{(\s*\"id\": 100,)", r"[\1", text), 100),
    "a brace lost and one too many": (
        lambda text: re.sub(r"(\"id\": 200,)", r"}\1", re.sub(r'\}(\s*\]\s*\},\s*\{\s*"id": 101,)', r"\1", text)),
        100,
    ),
    "a lost comma": (lambda text: re.sub(r"\},(\s*\{\s*\"id\": 101,)", r"}\1", text), 100),
    "a comma and a brace lost": (lambda text: re.sub(r"\},(\s*)\{(\s*\"id\": 101,)", r"}\1\2", text), 100),
}


@INDENTS
@pytest.mark.parametrize("name", SWALLOWING)
def test_an_element_that_may_hold_others_is_damage_of_the_file(tmp_path: Path, name: str, indent: int | None) -> None:
    spoil, number = SWALLOWING[name]
    text = spoil(array(indent))
    assert text != array(indent)
    with pytest.raises(DataError, match=r"a\.json: not valid JSON at line \d+, byte \d+, in element") as caught:
        read(tmp_path, text)
    assert f"in element {number} (from 0) of the array: " in str(caught.value)
    line, byte = map(int, re.findall(r"at line (\d+), byte (\d+)", str(caught.value))[0])
    assert text.encode()[:byte].count(b"\n") == line - 1
    assert abs(text.encode().index(b"question %d" % number) - byte) < 250


@INDENTS
@pytest.mark.parametrize(
    ("good", "bad", "fault"),
    [
        ('"id": 100,', '"id": 100,,', ","),
        ('"id": 100,', '"id": 100', '"conversations'),
        ('"id": 100,', '"id": 100;', ";"),
        ('"id": 100,', '"id": nul,', "nul,"),
        ('"id": 100,', '"id": 0100,', "100"),
        ('"id": 100,', '"id": ,', ","),
        ('"say 100,', '"say \\q 100,', "\\q"),
        ('"say 100,', '"say \n 100,', "\n 100"),
        ('"say 100,', '"say \0 100,', "\0"),
        ('"say 100,', '"say "100,"', '100,"'),
        ('"say 100,', '"say \udcff 100,', "\udcff"),
    ],
)
def test_damage_within_an_element_is_one_reject_with_its_place(
    tmp_path: Path, good: str, bad: str, fault: str, indent: int | None
) -> None:
    text = array(indent).replace(good, bad)
    outcomes = read(tmp_path, text)
    assert len(outcomes) == COUNT
    rejected = outcomes.pop(100)
    assert isinstance(rejected, tuple)
    reason, detail = rejected
    data = text.encode("utf-8", "surrogateescape")
    start = data.index(bad.encode("utf-8", "surrogateescape"))
    byte = data.index(fault.encode("utf-8", "surrogateescape"), start + bad.rindex(fault) if fault in bad else start)
    assert reason == "bad_json"
    assert detail.startswith(f"line {data[:byte].count(10) + 1}, byte {byte}: ")
    whole = [talk for talk in TALKS if talk["id"] != 100]
    for record, talk in zip(outcomes, whole, strict=True):
        assert isinstance(record, Record)
        assert (record.record_no, record.turns[0].text) == (talk["id"], f"question {talk['id']}")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_in_lines_a_fault_stays_in_its_line(tmp_path: Path, end: str, bom: str) -> None:
    text = bom + quote_in(end.join(map(json.dumps, TALKS)), 100, 290)
    outcomes = read(tmp_path, text + end + "\0" * 20, "a.jsonl")
    assert len(outcomes) == COUNT + 1
    rejected = {index: item for index, item in enumerate(outcomes) if isinstance(item, tuple)}
    assert list(rejected) == [100, 290, COUNT]
    assert rejected[100][1].startswith(place_of(text, "100, [") + ": Expecting ',' delimiter, got '100, [")
    assert rejected[COUNT][1].startswith(f"line {COUNT + 1}, byte {len((text + end).encode())}: ")


@INDENTS
def test_spaces_between_commas_are_not_a_record(tmp_path: Path, indent: int | None) -> None:
    text = re.sub(r"\},(\s*\{\s*\"id\": 10[05],)", r"},, ,\1", array(indent))[:-1] + ",]"
    outcomes = read(tmp_path, text)
    assert [item.record_no for item in outcomes if isinstance(item, Record)] == list(range(COUNT))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            array(None)[:-1] + "}",
            r"not valid JSON at line 1, byte \d+, in element 299 \(from 0\).*Expecting '\]', got '}'",
        ),
        (array(1)[:-1], r"truncated, the JSON array that begins at byte 0 never ends; download the file"),
        (array(1)[: 40 * COUNT], r"truncated, the JSON array that begins at byte 0 never ends; download the file"),
        (array(1) + "\n\0\0", r"text after the end of its JSON array, b'\\x00\\x00' at line \d+, byte \d+; expected"),
        (array(1) + array(1), r"text after the end of its JSON array, b'\[\\n {.*' at line \d+, byte \d+; expected"),
        (
            array(None)[1:],
            r"neither a JSON array nor JSONL, no valid JSON in its first 1 record; line 1, byte \d+: Exp",
        ),
    ],
)
def test_damage_at_the_ends_of_an_array_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: .*" + message):
        read_source(tmp_path / "a.json", "LAZY", format="llava")


COCO = coco([picture(number) for number in (7, 8, 9)], [box(number, 7) for number in (1, 2, 3)])
OBJECTS = [
    {"image_id": number, "objects": [{**xy, "w": 30, "h": 40, "names": ["cat"]} for xy in WHERE]}
    for number in (8, 7, 9)
]
REGIONS = [
    {"id": number, "regions": [{**xy, "width": 30, "height": 40, "phrase": "a cat"} for xy in WHERE]}
    for number in (8, 7, 9)
]
GREFS = [{"no_target": False, **ref([number], "a cat", image_id=7)} for number in (1, 2, 3)]
CAPTIONED = coco([picture(number, caption="a cat") for number in (7, 8, 9)], [box(1, 7), box(2, 8), box(3, 9)])
CCMD = [{**LINE, "objects": [{"category_name": "cat", "bboxes": [[1, 2, 30, 40]]}]} for _ in range(3)]
FILES: dict[str, tuple[str, dict[str, Any], str]] = {  # task, files with the annotation first, what is spoilt in them
    "coco, images": ("DET", {"a.json": COCO}, "images"),
    "coco, annotations": ("DET", {"a.json": COCO}, "annotations"),
    "coco, categories": ("DET", {"a.json": COCO}, "categories"),
    "mdetr, images": ("VG", {"a.json": CAPTIONED}, "images"),
    "objects": ("DET", {"a.json": OBJECTS, "image_data.json": IMAGE_DATA}, "a.json"),
    "regions": ("REG", {"a.json": REGIONS, "image_data.json": IMAGE_DATA}, "a.json"),
    "image_data": ("DET", {"a.json": OBJECTS, "image_data.json": IMAGE_DATA}, "image_data.json"),
    "grefs": ("VG", {"a.json": GREFS, "instances.json": COCO}, "a.json"),
    "instances of grefs": ("VG", {"a.json": GREFS, "instances.json": COCO}, "images"),
    "ccmd in an array": ("DET", {"a.json": CCMD}, "a.json"),
}


def spoilt(value: object, where: str, indent: int | None) -> str:
    """The file with a quote too many in the first and in the last element of one array of it."""
    marked = json.loads(json.dumps(value))
    elements = marked[where] if isinstance(marked, dict) else marked
    for element in (elements[0], elements[-1]):
        element["@"] = "@"
    return json.dumps(marked, indent=indent).replace('"@"', '"@""')


@INDENTS
@pytest.mark.parametrize("name", FILES)
def test_every_array_of_every_format_is_watched(tmp_path: Path, name: str, indent: int | None) -> None:
    task, files, where = FILES[name]
    for file, value in files.items():
        is_spoilt = where in (value if isinstance(value, dict) else [file])
        text = spoilt(value, where, indent) if is_spoilt else json.dumps(value)
        (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"\.json: not valid JSON at line \d+, byte \d+, in element 0 \(from 0\) of"):
        read_source(tmp_path / "a.json", task)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ('"info": {"a": "x" y"}', r"in element 0 \(from 0\) of the object at byte \d+: Expecting"),
        ('"info": [{"a": "x" y"}]', r"in element 0 \(from 0\) of the array at byte \d+: Expecting"),
        ('"info": {"a": ["x" y"]}', r"in element 0 \(from 0\) of the object at byte \d+: Expecting"),
        ('"version": "1.0""', r"at byte \d+"),
    ],
)
def test_a_quote_too_many_in_what_is_not_needed_counts_too(tmp_path: Path, member: str, message: str) -> None:
    text = json.dumps(COCO)
    text = "{" + member + ", " + text[1:].replace('"file_name": "', '"file_name": "" ', 1)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_source(tmp_path / "a.json", "DET", format="coco")


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("where", ["annotations", "categories"])
def test_an_element_of_coco_that_is_not_a_record_is_never_left_out(tmp_path: Path, where: str, number: int) -> None:
    value = json.loads(json.dumps({**COCO, "categories": COCO["categories"] * 3}))
    value[where][number]["@"] = "@"
    text = json.dumps(value, indent=1).replace('"@"\n', "nul\n")
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    line, byte = re.findall(r"\d+", place_of(text, "nul"))
    with pytest.raises(
        DataError, match=rf"not valid JSON at line {line}, byte {byte}: Expecting value.*; fix the file there"
    ):
        read_source(tmp_path / "a.json", "DET")


@pytest.mark.parametrize(
    ("text", "offset", "what", "ends_early"),
    [
        (b'{"a": 1', 7, "Expecting ',' delimiter, got the end", True),
        (b'{"a": "x', 6, "Unterminated string starting", True),
        (b'{"a": tru', 6, "Expecting value, got 'tru'", True),
        (b'{"a": 1.', 7, "Expecting ',' delimiter, got '.'", True),
        (b'{"a": tru}', 6, "Expecting value, got 'tru}'", False),
        (b'{"a": 1} x', 9, "Expecting one value, got 'x'", False),
        ('{"猫": x}'.encode(), 8, "Expecting value, got 'x}'", False),
        (b'{"\xff": 1}', 2, "Invalid UTF-8, got b'\\xff'", False),
        (b'{"a": "' + b"x" * 100_000 + b'", b}', 100_010, "Expecting property name", False),
        (b'{"a": "\xe7\x8c', 6, "Unterminated string starting", True),
    ],
)
def test_the_first_fault(text: bytes, offset: int, what: str, ends_early: bool) -> None:
    fault = first_fault(text)
    assert fault is not None
    assert (fault.offset, fault.ends_early) == (offset, ends_early)
    assert fault.what.startswith(what)


@pytest.mark.parametrize(
    "text", [b"{}", b' {"a": NaN} ', b'{"a": -Infinity, "b": "\\ud800"}', b"1" * 9999, b"[" * 9999]
)
def test_no_fault(text: bytes) -> None:
    assert first_fault(text) is None


OTHERS = [b'{"id": 1, "in": [{"a": 1}, {"a": 2, "id": 3}], "z": 0}']


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        (b'{"id": x, "in": [{"b": 1}]}', True),  # nothing is wrong but a word
        (b'{"id": "x"y"", "z": 0}', True),
        (b'{"id": "x"y"", "z": 0, "in": [{"id": 1}]}', False),  # `id` begins an element, too
        (b'{"z": "x"y"}, {z": 1}', False),
        (b'{"z": "x"y"", "in": [{"a": 1}]}', True),
        (b'{"z": "x"y"", "in": [{"q": 1}]}', False),
        (b'{"z": "x"y"", "in": [{"a": 1}], "z": 1}', False),
        (b'{"id": 1, "z": 0, "id": 2, "z": nul}', False),
        (b'{"z": "x"y"", "in": [{"a": 1}}', False),
        (b'"z": "x"', False),
        (b"nul", False),
    ],
)
def test_whether_an_element_stands_alone(text: bytes, alone: bool) -> None:
    assert stands_alone(text, OTHERS) == alone
