"""Finds the first fault in a piece of JSON, and decides whether the damage is certainly limited to one element.

An extra quote or bracket can merge thousands of elements into one. Such a piece must not count as one invalid record:
the records in it would be lost, and the records after it would get wrong numbers.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from griffon_shards.support.errors import DataError

_PREFIXES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)  # bytes: a fault near the start is found without decoding everything
_SHOWN = 24  # bytes
_MOST_BYTES = 4 << 20  # of an element that is examined
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity", "-")
_HALF_A_NUMBER = re.compile(r"\.|[eE][+-]?")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s"{}\[\],:]++|"', re.DOTALL)
_OPENED = re.compile(rb'\{[ \t\r\n]*+"')
_NESTED = re.compile(rb'\{[ \t\r\n]*+"((?:[^"\\]|\\.)*+)"[ \t\r\n]*+:', re.DOTALL)
_PLAIN_KEY = re.compile(r"[\w .-]+", re.ASCII)
_ANY = msgspec.json.Decoder(msgspec.Raw)


class RepeatedKey(ValueError):
    """An object has a key twice: it is probably two objects whose separator `}, {` is missing."""

    def described(self, file: str, what: str, place: str) -> DataError:
        """Return the error of the file, given the damaged element and its place."""
        return DataError(
            f"{file}: {what} at {place} has the key {self} twice in one object, so it may be two records whose "
            "separator is missing; fix the file there, or download it again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first position at which a text is not valid JSON.

    Attributes:
        offset: in bytes.
        what: what was expected there, and what was found.
        ends_early: the only fault is that the text ends too early.
    """

    offset: int
    what: str
    ends_early: bool


def is_json(text: bytes) -> bool:
    """Whether a text is one JSON value; `NaN` and `Infinity` are allowed; text nested too deeply to parse counts."""
    try:
        _ANY.decode(text)
    except RecursionError:
        return True
    except msgspec.DecodeError:
        return first_fault(text) is None
    return True


def first_fault(text: bytes) -> Fault | None:
    """Return the first position at which a text is not one JSON value, or None if it is one."""
    for size in (*_PREFIXES, len(text)):
        fault = _fault(text[:size])
        if size >= len(text) or (fault and not fault.ends_early):
            return fault
    raise AssertionError


def _fault(text: bytes) -> Fault | None:
    """As `first_fault`, for a text that is decoded completely."""
    decoded = text.decode("utf-8", "surrogateescape")  # characters can be mapped back to byte offsets
    start = len(decoded) - len(decoded.lstrip(" \t\r\n"))
    fault = None
    try:
        _, end = json.JSONDecoder().raw_decode(decoded, start)
        after = len(decoded) - len(decoded[end:].lstrip(" \t\r\n"))
        if after < len(decoded):
            fault = _described(text, decoded, after, "Expecting one value")
    except json.JSONDecodeError as error:
        fault = _described(text, decoded, error.pos, error.msg)
    except (RecursionError, ValueError):  # ValueError: an integer with thousands of digits
        pass
    try:
        text[: fault.offset if fault else len(text)].decode()
    except UnicodeDecodeError as error:
        return Fault(
            offset=error.start,
            what=f"Invalid UTF-8, got {text[error.start : error.end]!r}",
            ends_early=error.reason == "unexpected end of data" and fault is None,
        )
    return fault


def _described(text: bytes, decoded: str, at: int, what: str) -> Fault:
    rest = decoded[at:]
    ends_early = (
        not rest.strip(" \t\r\n")
        or what.startswith("Unterminated string")
        or any(literal.startswith(rest) for literal in _LITERALS)
        or _HALF_A_NUMBER.fullmatch(rest) is not None
        or (what.startswith("Invalid \\u") and len(rest) < 6)
    )
    offset = len(decoded[:at].encode("utf-8", "surrogateescape"))
    shown = text[offset : offset + _SHOWN].decode("utf-8", "backslashreplace")
    what = what.rstrip(": ").removesuffix(" at")
    return Fault(
        offset=offset, what=f"{what}, got {shown!r}" if shown else f"{what}, got the end", ends_early=ends_early
    )


def check_keys(text: bytes, value: Any) -> None:  # noqa: ANN401 - JSON
    """Raise RepeatedKey if an object in a JSON text has a key twice; parsers keep only the last.

    Args:
        text: one JSON value.
        value: the same, parsed; written again, it has fewer keys than the text if one is repeated.
    """
    try:
        if _colons(text) == _colons(orjson.dumps(value)):
            return
        json.loads(text, object_pairs_hook=_unique)
    except (TypeError, RecursionError):  # nested too deeply for any record
        return


def _colons(text: bytes) -> int:
    return text.count(b'":') + text.count(b'" :')


def _unique(pairs: list[tuple[str, Any]]) -> None:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise RepeatedKey(repr(key[:_SHOWN]))
        keys.add(key)


def stands_alone(text: bytes, others: Sequence[bytes]) -> bool:
    """Whether an element with invalid JSON is certainly a single element of its array.

    Args:
        text: the text between two commas that seem to belong to the array.
        others: some valid elements of the array.
    """
    text = text.strip(b" \t\r\n")
    if not (text.startswith(b"{") and text.endswith(b"}")) or len(text) > _MOST_BYTES:
        return False
    return _is_object_once_repaired(text) or _looks_like_one(text, others)


def _is_object_once_repaired(text: bytes) -> bool:
    """Whether it is one object after invalid words, invalid characters in strings and extra commas are replaced."""
    tokens: list[str] = []
    for index, token in enumerate(_TOKEN.findall(text)):
        if token == b"," and tokens[-1] in "{[,":
            continue
        if token in b"}]" and tokens and tokens[-1] == ",":
            tokens.pop()
        tokens.append(_repaired(token, index))
    repeated = False

    def seen(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated  # called last for the outermost object
        repeated = len({key for key, _ in pairs}) < len(pairs)

    try:
        json.loads(" ".join(tokens), object_pairs_hook=seen)
    except (ValueError, RecursionError):
        return False
    return not repeated  # with a repeated key, it may have been two objects


def _repaired(token: bytes, index: int) -> str:
    """Return the token if it is valid JSON, or else a valid token of the same kind."""
    try:
        value = token.decode()
        if token not in b"{}[],:":
            json.loads(value)
    except (ValueError, RecursionError):
        return f'"{index}"' if token.startswith(b'"') and len(token) > 1 else "null"
    return value


def _looks_like_one(text: bytes, others: Sequence[bytes]) -> bool:
    """Whether it holds no second element, wherever its strings end, judged by the keys of other elements."""
    once, inside = _keys_of(others)
    if not once or text.count(b"{") != text.count(b"}") or text.count(b"[") != text.count(b"]"):
        return False
    for brace in _OPENED.finditer(text, 1):
        nested = _NESTED.match(text, brace.start())
        if not nested or nested.group(1) not in inside:
            return False
    return all(len(re.findall(rb'(?<!\w)%b"\s*+:' % re.escape(key), text)) <= 1 for key in once)


def _keys_of(others: Sequence[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Return the keys that occur only at the top level of elements, and the first keys of objects nested in them."""
    outer: set[str] = set()
    inner: set[str] = set()
    first: set[str] = set()
    for text in others:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        for depth, nested in _objects(value):
            if depth == 0:
                outer.update(nested)
            else:
                inner.update(nested)
                first.update(list(nested)[:1])
    return (
        {key.encode() for key in outer - inner if _PLAIN_KEY.fullmatch(key)},
        {key.encode("utf-8", "replace") for key in first - outer},
    )


def _objects(value: Any) -> Iterator[tuple[int, dict[str, Any]]]:  # noqa: ANN401 - JSON
    """Yield every object in a value, with its depth."""
    pending = [(0, value)]
    while pending:
        depth, item = pending.pop()
        if isinstance(item, dict):
            yield depth, item
            pending += [(depth + 1, inner) for inner in item.values()]
        elif isinstance(item, list):
            pending += [(depth + 1, inner) for inner in item]
