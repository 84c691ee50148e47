"""Small English grammar helpers for the sentences of the sample data."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_PLURALS = {"cross": "crosses"}


def plural(noun: str) -> str:
    """Return the plural of a noun, which may follow a colour: only the last word changes."""
    start, blank, last = noun.rpartition(" ")
    return f"{start}{blank}{_PLURALS.get(last, last + 's')}"


def article(word: str) -> str:
    """Return `an` before a vowel, else `a`."""
    return "an" if word[0] in "aeiou" else "a"


def enumeration(parts: Sequence[str]) -> str:
    """Join parts as `a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
