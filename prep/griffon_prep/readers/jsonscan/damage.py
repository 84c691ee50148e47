"""What is wrong with a piece of JSON, where, and whether it is certain that the damage touches one element alone.

A quote or bracket too many can make one element out of thousands. Such a piece must not pass for one record that is no
JSON: the records in it would be lost, and those behind it would have wrong numbers.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

_PREFIXES = (1 << 12, 1 << 16, 1 << 20, 1 << 24)  # bytes: a fault near the start is found without decoding all
_SHOWN = 24  # bytes
_MOST_BYTES = 4 << 20  # of an element that is looked into
_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity", "-")
_HALF_A_NUMBER = re.compile(r"\.|[eE][+-]?")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s"{}\[\],:]++|"', re.DOTALL)
_OPENED = re.compile(rb'\{[ \t\r\n]*+"')
_NESTED = re.compile(rb'\{[ \t\r\n]*+"((?:[^"\\]|\\.)*+)"[ \t\r\n]*+:', re.DOTALL)
_PLAIN_KEY = re.compile(r"[\w .-]+", re.ASCII)
_ANY = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first place of a text that cannot be JSON.

    Attributes:
        offset: in bytes.
        what: was expected there and what there is.
        ends_early: nothing is wrong but that the text ends.
    """

    offset: int
    what: str
    ends_early: bool


def is_json(text: bytes) -> bool:
    """Whether a text is one JSON value, with `NaN` and the like; what is nested too deeply to tell counts as one."""
    try:
        _ANY.decode(text)
    except RecursionError:
        return True
    except msgspec.DecodeError:
        return first_fault(text) is None
    return True


def first_fault(text: bytes) -> Fault | None:
    """The first place at which a text is not one JSON value; None if it is one."""
    for size in (*_PREFIXES, len(text)):
        fault = _fault(text[:size])
        if size >= len(text) or (fault and not fault.ends_early):
            return fault
    raise AssertionError


def _fault(text: bytes) -> Fault | None:
    """As `first_fault`, of a text that is decoded as a whole."""
    decoded = text.decode("utf-8", "surrogateescape")  # a character is found by its bytes again
    start = len(decoded) - len(decoded.lstrip(" \t\r\n"))
    found = None
    try:
        _, end = json.JSONDecoder().raw_decode(decoded, start)
        behind = len(decoded) - len(decoded[end:].lstrip(" \t\r\n"))
        if behind < len(decoded):
            found = _described(text, decoded, behind, "Expecting one value")
    except json.JSONDecodeError as error:
        found = _described(text, decoded, error.pos, error.msg)
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        pass
    try:
        text[: found.offset if found else len(text)].decode()
    except UnicodeDecodeError as error:
        return Fault(
            offset=error.start,
            what=f"Invalid UTF-8, got {text[error.start : error.end]!r}",
            ends_early=error.reason == "unexpected end of data" and found is None,
        )
    return found


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


def stands_alone(text: bytes, others: Sequence[bytes]) -> bool:
    """Whether an element that is no JSON is certainly one element of its array.

    Args:
        text: from behind a comma of the array to the next, if the damage has not made that up.
        others: some elements of the array that are whole.
    """
    text = text.strip(b" \t\r\n")
    if not (text.startswith(b"{") and text.endswith(b"}")) or len(text) > _MOST_BYTES:
        return False
    return _is_whole_but_for_words(text) or _looks_like_one(text, others)


def _is_whole_but_for_words(text: bytes) -> bool:
    """Whether it is an object once wrong words, wrong characters in strings, and commas too many are taken out."""
    tokens: list[str] = []
    for number, token in enumerate(_TOKEN.findall(text)):
        if token == b"," and tokens[-1] in "{[,":
            continue
        if token in b"}]" and tokens and tokens[-1] == ",":
            tokens.pop()
        tokens.append(_mended(token, number))
    repeated = False

    def seen(pairs: list[tuple[str, Any]]) -> None:
        nonlocal repeated  # the outermost object comes last
        repeated = len({key for key, _ in pairs}) < len(pairs)

    try:
        json.loads(" ".join(tokens), object_pairs_hook=seen)
    except (ValueError, RecursionError):
        return False
    return not repeated  # a key twice, and it may have been two


def _mended(token: bytes, number: int) -> str:
    """A token that JSON takes, of the same kind."""
    try:
        value = token.decode()
        if token not in b"{}[],:":
            json.loads(value)
    except (ValueError, RecursionError):
        return f'"{number}"' if token.startswith(b'"') and len(token) > 1 else "null"
    return value


def _looks_like_one(text: bytes, others: Sequence[bytes]) -> bool:
    """Whether there is room for no other element in it, quotes in it or not, going by the keys that others have."""
    once, inside = _keys_of(others)
    if not once or text.count(b"{") != text.count(b"}") or text.count(b"[") != text.count(b"]"):
        return False
    for brace in _OPENED.finditer(text, 1):
        found = _NESTED.match(text, brace.start())
        if not found or found.group(1) not in inside:
            return False
    return all(len(re.findall(rb'(?<!\w)%b"\s*+:' % re.escape(key), text)) <= 1 for key in once)


def _keys_of(others: Sequence[bytes]) -> tuple[set[bytes], set[bytes]]:
    """The keys that an element has once, and those with which an object inside of an element begins."""
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
    """Every object in a value, with how deep it is in it."""
    left = [(0, value)]
    while left:
        depth, each = left.pop()
        if isinstance(each, dict):
            yield depth, each
            left += [(depth + 1, inner) for inner in each.values()]
        elif isinstance(each, list):
            left += [(depth + 1, inner) for inner in each]
