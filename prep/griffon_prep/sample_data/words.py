"""The little English grammar that the sentences of the sample data need."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLURALS = {"cross": "crosses"}


def plural(noun: str) -> str:
    """The plural of a noun with or without a colour before it: its last word's."""
    start, blank, last = noun.rpartition(" ")
    return f"{start}{blank}{_PLURALS.get(last, last + 's')}"


def article(word: str) -> str:
    """`an` before a vowel, else `a`."""
    return "an" if word[0] in "aeiou" else "a"


def enumeration(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
