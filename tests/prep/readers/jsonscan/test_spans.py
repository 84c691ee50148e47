"""Where the elements of a file lie: the same as `json` finds, whatever the piece size; and damage is not overlooked."""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from griffon_prep.readers.jsonscan import spans as json_spans
from griffon_prep.readers.jsonscan.spans import Spans, element_spans
from griffon_shards.support.errors import DataError

PIECES = (7, 16, 64, 1000)
BOM = b"\xef\xbb\xbf"

texts = st.text(st.sampled_from('"\\[]{},:a \n\t/é图\U0001f600\u2028'), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
pieces = st.sampled_from(PIECES)
boms = st.sampled_from([b"", BOM])
line_ends = st.sampled_from(["\n", "\r\n"])


def spans_of(data: bytes, piece: int) -> list[Spans]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "_CHUNK", piece)
        return list(element_spans(BytesIO(data), "a.json"))


def elements(data: bytes, piece: int) -> list[bytes]:
    """The text of every element; both from the spans' own bytes and from the file, which must agree."""
    result: list[bytes] = []
    for spans in spans_of(data, piece):
        for start, end in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True):
            result.append(spans.data[start:end])
            assert data[spans.base + start : spans.base + end] == result[-1]
    return result


def parsed(data: bytes, piece: int) -> list[Any]:
    return [json.loads(element) for element in elements(data, piece)]


@settings(deadline=None)
@given(
    value=st.lists(values, max_size=6),
    indent=st.sampled_from([None, 0, 1, 4, "\t"]),
    ascii_only=st.booleans(),
    end=line_ends,
    bom=boms,
    front=st.sampled_from([b"", b" ", b"\r\n"]),
    piece=pieces,
)
@example([], None, True, "\n", BOM, b"", 7)
@example(["\\" * 9, '\\"' * 9, '"]' * 9, "\\\\"], None, True, "\n", b"", b"", 7)
@example([[[]], {}, {"a": {"b": [{}]}}], 1, False, "\r\n", BOM, b"\r\n", 7)
@example([[{"long": "x," * 5000}], 1, {"y": ["]"] * 3000}, None], 0, False, "\n", b"", b" ", 16)
def test_an_array_has_the_elements_that_json_finds(
    value: list[Any], indent: int | str | None, ascii_only: bool, end: str, bom: bytes, front: bytes, piece: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only).replace("\n", end)
    for behind in ("", "\n", " \r\n\t" * 20):
        assert parsed(bom + front + text.encode() + behind.encode(), piece) == value


@settings(deadline=None)
@given(
    value=st.lists(values.filter(lambda value: not isinstance(value, list)), min_size=1, max_size=6),
    ascii_only=st.booleans(),
    end=line_ends,
    bom=boms,
    blank_lines=st.sampled_from(["", "\n", "  \t\n\r\n"]),
    last_end=st.booleans(),
    piece=pieces,
)
@example([{"long": "x," * 5000}, 1, {"y": ["]"] * 3000}], True, "\r\n", BOM, "\n", False, 7)
def test_lines_are_the_elements_of_jsonl(
    value: list[Any], ascii_only: bool, end: str, bom: bytes, blank_lines: str, last_end: bool, piece: int
) -> None:
    text = (end + blank_lines).join(json.dumps(item, ensure_ascii=ascii_only) for item in value)
    assert parsed(bom + text.encode() + (end.encode() if last_end else b""), piece) == value


@settings(deadline=None, max_examples=30)
@given(value=st.lists(values, max_size=3), indent=st.sampled_from([None, 2]), bom=boms, piece=pieces)
@example([{"a": '\\"]'}, "]", [[]]], None, BOM, 7)
def test_an_array_truncated_anywhere_is_refused(value: list[Any], indent: int | None, bom: bytes, piece: int) -> None:
    text = bom + json.dumps(value, indent=indent).encode()
    for size in range(len(bom) + 1, len(text)):
        with pytest.raises(DataError, match=rf"a\.json: truncated, .* begins at byte {len(bom)} never ends"):
            elements(text[:size], piece)


@given(value=st.lists(values, max_size=4), behind=st.sampled_from([b"x", b"]", b"\n[]", b" {}", b"\0"]), piece=pieces)
def test_text_after_an_array_is_refused(value: list[Any], behind: bytes, piece: int) -> None:
    with pytest.raises(DataError, match=r"a\.json: there is text after the end"):
        elements(json.dumps(value).encode() + b"\n" * 100 + behind, piece)


@pytest.mark.parametrize("piece", PIECES)
def test_truncated_lines_lose_only_the_last(piece: int) -> None:
    lines = [json.dumps({"number": i, "text": '"' * i}).encode() for i in range(9)]
    whole = b"\n".join(lines)
    for size in range(1, len(whole)):
        assert b"\n".join(elements(whole[:size], piece)) == whole[:size].rstrip(b"\n")


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b" \n\r\n ", []),
        (BOM, []),
        (b"[]", []),
        (b"[ \n\t]", []),
        (b'[1, {"a": 2} , ]\n', [b"1", b'{"a": 2}']),
        (b"[1,,2]", [b"1", b"2"]),
        (b'[,1, \n,{"a": 2}, , ,]', [b"1", b'{"a": 2}']),
        (b'{"a": 1}', [b'{"a": 1}']),
        (b'not json\n{"a": 1}\n[2]', [b"not json", b'{"a": 1}', b"[2]"]),
    ],
)
def test_unusual_files(text: bytes, expected: list[bytes], piece: int) -> None:
    assert [element.strip() for element in elements(text, piece)] == expected


def lines_and_array() -> Iterator[bytes]:
    records = [json.dumps({"number": i, "text": "x" * (i % 30)}).encode() for i in range(3000)]
    yield b"\n".join(records)
    yield b"[" + b",".join(records) + b"]"


@pytest.mark.parametrize("text", list(lines_and_array()), ids=["lines", "array"])
def test_a_long_file_is_held_a_piece_at_a_time(text: bytes) -> None:
    spans = spans_of(text, 256)
    assert sum(len(span.starts) for span in spans) == 3000
    assert max(len(span.data) for span in spans) < 3 * 256


@pytest.mark.parametrize("text", [b'{"a": "%b"}\n{}', b'[{"a": "%b"}, {}]'], ids=["lines", "array"])
def test_an_element_without_end_is_refused(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_spans, "_MAX_ELEMENT_BYTES", 1 << 20)
    assert len(elements(text % (b"x" * 700_000), 4096)) == 2
    with pytest.raises(
        DataError, match=r"a\.json: has an element larger than 1 MiB at line 1, byte [01]; expected JSONL"
    ):
        elements(text % (b"x" * 5_000_000), 4096)
