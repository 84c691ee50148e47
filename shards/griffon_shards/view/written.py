"""Where the boxes of a text are written, as JavaScript counts."""

from collections.abc import Sequence
from typing import Any

from griffon_shards.grammar import WrittenBox


def in_utf16(text: str, boxes: Sequence[WrittenBox]) -> list[dict[str, Any]]:
    """Boxes with their place in code units of UTF-16, in which JavaScript counts; boxes ascend."""
    shown, characters, units = [], 0, 0
    for item in boxes:
        units += _units(text[characters : item.start])
        start, characters = units, item.start
        units += _units(text[characters : item.end])
        characters = item.end
        shown.append({"start": start, "end": units, "box": item.box_xyxy, "label": item.label})
    return shown


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text) if not text.isascii() else len(text)
