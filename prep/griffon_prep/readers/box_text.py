r"""Boxes in the text of conversations, as other models' fine-tuning data write them.

| notation | example |
| --- | --- |
| ms-swift | `<ref-object><bbox>`, which stand for the next of the record's `objects` |
| Qwen2.5-VL, Qwen3-VL | `[{"bbox_2d": [10, 20, 110, 220], "label": "cat"}]`, perhaps in a block of code |
| Qwen-VL, InternVL | `<ref>cat</ref><box>(10,20),(110,220)</box>`, `<box>[[10, 20, 110, 220]]</box>` |
| Qwen2-VL | `<\|object_ref_start\|>cat<\|object_ref_end\|><\|box_start\|>(10,20),(110,220)<\|box_end\|>` |

None of them but ms-swift's says in which unit its numbers are.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from griffon_prep.readers.fields import box_of, short
from griffon_prep.readers.jsonscan.damage import RepeatedKey
from griffon_prep.readers.jsonscan.records import parse_object
from griffon_prep.records import BOX_MARK, Rejected, is_blank
from griffon_shards.support.tables import counted
from griffon_shards.types import BoxXYXY

FOREIGN_BOX = re.compile(r"bbox_2d|point_2d|<\|(?:box|quad|object_ref)_(?:start|end)\|>|<box>\s*[\[(]|<(?:ref-object)>")
"""Finds a box, or the phrase of one, in another model's notation."""

UNREAD_BOX = re.compile(
    r"""["'](?:b?box|bounding[ _-]?box)(?:es)?(?:[ _-]\w+)?["']\s*:\s*\[[\[\s]*[-+\d.]"""  # {"bbox": [10, 20, ...]}
    r"|<loc_?[0-9]{1,4}>|<patch_index_[0-9]+>|<box>\s*<",
    re.IGNORECASE,
)
"""Finds a box in notations that are not converted: JSON with other keys, PaliGemma's, Florence-2's and Kosmos-2's."""

_REF = "<ref-object>"


def has_foreign_boxes(fields: Mapping[str, Any]) -> bool:
    """Whether the fields of a conversation hold boxes in another model's notation."""
    return isinstance(fields.get("objects"), dict) or bool(FOREIGN_BOX.search(str(fields.get("conversations"))))


_PIECES = re.compile(
    r"(?P<json>(?:```(?:json)?\s*+)?(?:\[\s*+)?(?:\{[^{}]*+\}[\s,]*+)++\]?(?:\s*+```)?)"
    r"|<\|object_ref_start\|>(?P<ref1>[^<]*+)<\|object_ref_end\|>|<ref>(?P<ref2>[^<]*+)</ref>"
    r"|<\|box_start\|>(?P<box1>[^<]*+)<\|box_end\|>|<box>(?P<box2>[^<]*+)</box>"
    rf"|(?P<mark>{_REF}|{BOX_MARK})"
)
_OBJECT = re.compile(r"\{[^{}]*+\}")
_BRACKETS = re.compile(r"[\[\](){}\s]+")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_BETWEEN = re.compile(r"[\s,;]*")
_KEYS = ("bbox_2d", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A box of a text.

    Attributes:
        numbers: as they are written.
        stated: it is one of the record's `objects`, which state their unit.
        others: further keys that it has in JSON.
    """

    numbers: BoxXYXY
    stated: bool = False
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A phrase that is marked as the name of something in the image."""

    text: str


Piece = str | Phrase | Box


@dataclass(slots=True, kw_only=True)
class Objects:
    """The `objects` of a record, which its placeholders take one after the other."""

    phrases: Sequence[Any] = ()
    boxes: Sequence[Any] = ()
    taken_phrases: int = field(default=0, init=False)
    taken_boxes: int = field(default=0, init=False)

    def next_phrase(self) -> Phrase:
        """Take the next phrase."""
        self.taken_phrases += 1
        if self.taken_phrases > len(self.phrases):
            raise Rejected(
                "bad_record", f"objects: ref has {counted(len(self.phrases), 'phrase')}, the text has more {_REF}"
            )
        return _phrase(self.phrases[self.taken_phrases - 1])

    def next_box(self) -> Box:
        """Take the next box."""
        self.taken_boxes += 1
        if self.taken_boxes > len(self.boxes):
            raise Rejected(
                "bad_record",
                f"objects: bbox has {counted(len(self.boxes), 'box', 'boxes')}, the text has more {BOX_MARK}",
            )
        return Box(numbers=_four(self.boxes[self.taken_boxes - 1]), stated=True)

    def check_taken(self) -> None:
        """Reject the record if a phrase or a box was not taken: which placeholder means which is then unknown."""
        for name, given, taken, mark in (
            ("ref", self.phrases, self.taken_phrases, _REF),
            ("bbox", self.boxes, self.taken_boxes, BOX_MARK),
        ):
            if taken < len(given):
                raise Rejected("bad_record", f"objects: {name} has {len(given)} entries, the text has {taken} {mark}")


def pieces_of(text: str, objects: Objects | None) -> Iterator[Piece]:
    """Yield the text between boxes and marked phrases, the phrases and the boxes, in order.

    Args:
        text: a question or an answer.
        objects: what the placeholders stand for, or None if the record has none.

    Raises:
        Rejected: a box cannot be read, or there are too few `objects`.
    """
    done = 0
    for match in _PIECES.finditer(text):
        if match["mark"] and objects is None:
            raise Rejected("bad_record", f"the text has {match['mark']}, and the record has no objects")
        if match["json"] and "bbox_2d" not in match["json"]:
            continue
        yield text[done : match.start()]
        done = match.end()
        if match["mark"]:
            assert objects is not None
            yield objects.next_phrase() if match["mark"] == _REF else objects.next_box()
        elif match["json"]:
            yield from _of_json(match["json"], objects)
        elif match.lastgroup in ("ref1", "ref2"):
            yield _phrase(match[match.lastgroup])
        else:
            yield from _of_corners(match["box1"] or match["box2"] or "")
    yield text[done:]


def _of_json(text: str, objects: Objects | None) -> Iterator[Piece]:
    for match in _OBJECT.finditer(text):
        written = match[0]
        box = objects.next_box() if objects is not None and BOX_MARK in written else None
        phrase = objects.next_phrase() if objects is not None and _REF in written else None
        # The placeholders are replaced by values of the same kind, so that what is left is JSON.
        written = written.replace(f'"{BOX_MARK}"', BOX_MARK).replace(BOX_MARK, "null", 1)
        written = written.replace(f'"{_REF}"', _REF).replace(_REF, "null", 1)
        try:
            fields = parse_object(written.encode())
        except (Rejected, RepeatedKey) as fault:
            what = fault.detail if isinstance(fault, Rejected) else f"it has the key {fault} twice"
            raise Rejected("bad_record", f"a box in the text is not JSON: {short(match[0])} ({what})") from None
        if phrase is not None:
            yield phrase
        elif fields.get("label") is not None:
            yield _phrase(fields["label"])
        else:
            yield Phrase(text="")
        numbers = box.numbers if box is not None else _four(fields.get("bbox_2d"))
        others = tuple(key for key in fields if key not in _KEYS)
        yield Box(numbers=numbers, stated=box is not None, others=others)


def _of_corners(text: str) -> Iterator[Piece]:
    """Yield the boxes of `(x1,y1),(x2,y2)` or `[[x1, y1, x2, y2], ...]`."""
    numbers = [number.strip() for number in _BRACKETS.sub(" ", text).split(",")]
    flat = [part for number in numbers for part in number.split()]
    if not flat or len(flat) % 4 or not all(map(_NUMBER.fullmatch, flat)):
        raise Rejected("bad_record", f"expected boxes of two corners in the text, got {short(text)}")
    for start in range(0, len(flat), 4):
        x1, y1, x2, y2 = map(float, flat[start : start + 4])
        yield Box(numbers=(x1, y1, x2, y2))


def _four(value: object) -> BoxXYXY:
    if isinstance(value, list) and len(value) == 2:
        raise Rejected("bad_record", f"bbox: {short(value)} is a point; expected four numbers")
    return box_of(value, "bbox")


def _phrase(value: object) -> Phrase:
    if not isinstance(value, str) or is_blank(value) or BOX_MARK in value or FOREIGN_BOX.search(value):
        raise Rejected("bad_record", f"expected a phrase for a box, got {short(value)}")
    return Phrase(text=value.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A box with the phrase directly before it; `""` if there is none."""

    phrase: str
    box: Box


class Joined:
    """A text in the grammar of answers, made from its pieces.

    A phrase with boxes directly after it is written as `phrase-<bbox>&phrase-<bbox>`, a box without a phrase alone;
    boxes with nothing but blanks and commas between them are joined by `&`.

    Attributes:
        text: the text, with `BOX_MARK` for each box.
        boxes: the boxes, in their order.
        phrases: all phrases, with boxes or without.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.boxes: list[Named] = []
        self.phrases: list[str] = []
        self._out: list[str] = []
        self._lead = self._phrase = self._gap = ""  # not written yet: a phrase, and the blanks around it
        self._after_box = self._unnamed = False
        for piece in pieces:
            if isinstance(piece, Box):
                self._add_box(piece)
            elif isinstance(piece, Phrase):
                self._add_phrase(piece.text)
            elif (self._phrase or self._after_box) and _BETWEEN.fullmatch(piece):
                self._gap += piece
            else:
                self._write_waiting()
                self._out.append(piece)
        self._write_waiting()
        self.text = "".join(self._out)

    def _add_box(self, box: Box) -> None:
        phrase = self._phrase or (self.boxes[-1].phrase if self._after_box and not self._unnamed else "")
        self._out.append(f"{'&' if self._after_box else ''}{phrase}{'-' if phrase else ''}{BOX_MARK}")
        self.boxes.append(Named(phrase=phrase, box=box))
        self._lead = self._phrase = self._gap = ""
        self._after_box, self._unnamed = True, False

    def _add_phrase(self, phrase: str) -> None:
        """Begin a phrase; an empty one means that the next box has none."""
        self._unnamed = not phrase
        if self._phrase:
            self._write_waiting()
        self._lead, self._phrase, self._gap = self._gap, phrase, ""
        self.phrases += [phrase] if phrase else []

    def _write_waiting(self) -> None:
        self._out += [self._lead, self._phrase, self._gap]
        self._lead = self._phrase = self._gap = ""
        self._after_box = self._unnamed = False
