"""One large JSON object, member by member, piece by piece: the same as `json` finds, and damage is not overlooked."""

import json
from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from griffon_prep.readers.jsonscan import members as json_members
from griffon_prep.readers.jsonscan import spans as json_spans
from griffon_prep.readers.jsonscan.members import decoded_elements, enter_array, members, skip_value
from griffon_prep.readers.jsonscan.spans import Elements, Spans, Window
from griffon_shards.support.errors import DataError

PIECES = (7, 16, 64, 1000)
ROWS = "rows"
RLE = {"a": 1, "segmentation": {"counts": 'k]d5"}, {"\\', "size": [480, 640]}}
PANOPTIC = {"a": 2, "segments_info": [{"id": 1, "bbox": [1, 2, 3, 4]}, {"id": 2, "bbox": []}]}


class Row(msgspec.Struct):
    """The fields that the decoder takes; everything else comes as spans."""

    a: int


texts = st.text(st.sampled_from('"\\[]{},:a \n\t/é图\U0001f600\u2028'), max_size=8)
scalars = (
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
rows = st.lists(st.dictionaries(st.sampled_from(["a", "b", '"}, {"']), st.integers(0, 99) | values, max_size=3))
pieces = st.sampled_from(PIECES)
indents = st.sampled_from([None, 0, 1, "\t"])


class Finite(BytesIO):
    """A file that a reader may not ask for more than a few times at its end: one that hangs fails instead."""

    asked_at_end = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.asked_at_end += not data
        assert self.asked_at_end < 20
        return data


def contents(data: bytes, piece: int) -> list[tuple[str, Any]]:
    """The members of an object in order; of the array `rows` the elements, however they come."""
    result: list[tuple[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "_CHUNK", piece)
        patch.setattr(json_members, "_PIECE", piece)
        window = Window(Finite(data), "a.json")
        window.skip_blanks()
        for key in members(window):
            start = window.base
            if key == ROWS:
                result.append((key, elements(enter_array(window, key))))
            else:
                skip_value(window)
                result.append((key, json.loads(data[start : window.base])))
        window.expect_end("object")
    return result


def elements(taken: Elements) -> list[Any]:
    decode = msgspec.json.Decoder(list[Row]).decode
    result: list[Any] = []
    for part in decoded_elements(taken, decode):
        if isinstance(part, Spans):
            bounds = zip(part.starts.tolist(), part.ends.tolist(), strict=True)
            result += [json.loads(part.data[start:end]) for start, end in bounds]
        else:
            result += part
    return result


def expected(value: Any, got: Any) -> Any:  # noqa: ANN401 - JSON
    """The elements that json found, as rows where they were decoded into rows."""
    return [Row(a=item["a"]) if isinstance(row, Row) else item for item, row in zip(value, got, strict=True)]


@settings(deadline=None)
@given(
    value=st.dictionaries(texts, values, max_size=4),
    found_rows=rows,
    place=st.integers(0, 4),
    indent=indents,
    ascii_only=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    piece=pieces,
)
@example({}, [], 0, None, True, "\n", b"", 7)
@example({"x": '\\"', "]": "}"}, [RLE, PANOPTIC, {"a": 3}, {"b": "},{"}, {"a": 4}], 1, 1, True, "\r\n", b"", 7)
@example({}, [{"a": i} for i in range(500)], 0, None, True, "\n", b"", 64)
@example({"long": "x{" * 3000}, [{"a": 1, "b": [{"a": 1}] * 900}, {"a": 2}], 0, 0, True, "\n", b"", 16)
def test_the_members_are_what_json_finds(
    value: dict[str, Any],
    found_rows: list[Any],
    place: int,
    indent: int | str | None,
    ascii_only: bool,
    end: str,
    bom: bytes,
    piece: int,
) -> None:
    items = list(value.items())
    items.insert(place, (ROWS, found_rows))
    whole = dict(items)
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).replace("\n", end)
    for behind in ("", " \n\t" * 9):
        got = contents(bom + text.encode() + behind.encode(), piece)
        assert [key for key, _ in got] == list(whole)
        for key, part in got:
            assert part == (expected(whole[key], part) if key == ROWS else whole[key])


@pytest.mark.parametrize("piece", PIECES)
def test_rows_of_good_order_are_decoded(piece: int) -> None:
    """Otherwise the tests above would not cover the fast path."""
    text = json.dumps({ROWS: [{"a": i, "b": ["}", "{"]} for i in range(300)]})
    ((_, got),) = contents(text.encode(), piece)
    assert got == [Row(a=i) for i in range(300)]


@settings(deadline=None, max_examples=30)
@given(
    value=st.dictionaries(texts, values, max_size=2), found_rows=rows.map(lambda r: r[:3]), indent=indents, piece=pieces
)
@example({"a": '\\"}'}, [RLE, PANOPTIC], None, 7)
@example({}, [{"a": 1}, {"a": 2}, {"a": 3}], 1, 64)
def test_an_object_truncated_anywhere_is_refused(
    value: dict[str, Any], found_rows: list[Any], indent: int | str | None, piece: int
) -> None:
    text = json.dumps({**value, ROWS: found_rows, "last": 12.5}, indent=indent).encode()
    for size in range(len(text)):
        with pytest.raises(DataError, match=r"a\.json: "):
            contents(text[:size], piece)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("behind", [b"x", b"}", b"]", b"\n{}", b" []", b",", b"\0"])
@pytest.mark.parametrize("value", [{}, {"a": 1}, {ROWS: [{"a": 1}]}, {"a": {}}])
def test_text_after_an_object_is_refused(value: dict[str, Any], behind: bytes, piece: int) -> None:
    with pytest.raises(DataError, match=r"a\.json: there is text after the end of its JSON object"):
        contents(json.dumps(value).encode() + b" " * 50 + behind, piece)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", r"expected \{ at byte 0, got b'\[\]'"),
        (b"\x89PNG\r\n\x1a\n", r"expected \{ at byte 0"),
        (b'{"a" 1}', "expected : at byte 5"),
        (b'{"a": 1 "b": 2}', "expected , or } at byte 8"),
        (b'{"a": 1]', "expected , or } at byte 7"),
        (b'{"a": }', "at byte 6"),
        (b'{"a": , "b": 1}', "at byte 6"),
        (b"{'a': 1}", "at byte 1"),
        (b"{a: 1}", "at byte 1"),
        (b'{"a": 1,}', "at byte 8"),
        (b'{"\\x": 1}', "not valid JSON before byte"),
        (b'{"\xff": 1}', "not valid JSON before byte"),
        (b'{"rows": {"a": 1}}', "rows: expected an array at byte 9"),
        (b'{"rows": null}', "rows: expected an array at byte 9"),
    ],
)
def test_what_is_not_an_object_is_refused(text: bytes, message: str, piece: int) -> None:
    with pytest.raises(DataError, match=message):
        contents(text, piece)


@pytest.mark.parametrize("piece", [16, 64])
def test_a_long_array_is_held_a_piece_at_a_time(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0

    class Watched(Window):
        def grow(self, least: int | None = None) -> bool:
            nonlocal longest
            grown = super().grow(least)
            longest = max(longest, len(self.data))
            return grown

    monkeypatch.setattr(f"{__name__}.Window", Watched)
    text = json.dumps({ROWS: [{"a": i} for i in range(5000)]})
    ((_, got),) = contents(text.encode(), piece)
    assert len(got) == 5000
    assert longest < 6 * max(piece, 16)


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, '{"x": ' * 5000 + "0" + "}" * 5000])
def test_nesting_of_any_depth_does_not_crash(value: str) -> None:
    assert [key for key, _ in keys_only(f'{{"deep": {value}, "b": 1}}'.encode())] == ["deep", "b"]
    text = f'{{"rows": [{{"a": 1, "x": {value}}}, {{"a": 2}}]}}'.encode()
    result = 0
    window = Window(Finite(text), "a.json")
    for key in members(window):
        for part in decoded_elements(enter_array(window, key), msgspec.json.Decoder(list[Row]).decode):
            result += len(part.starts) if isinstance(part, Spans) else len(part)
    assert result == 2


def keys_only(data: bytes) -> list[tuple[str, None]]:
    window = Window(Finite(data), "a.json")
    result = []
    for key in members(window):
        skip_value(window)
        result.append((key, None))
    return result
