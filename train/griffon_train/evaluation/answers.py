"""Reads the boxes of an answer: strictly, by the grammar of frozen sets, and otherwise leniently.

The lenient parser reads what a model that has almost learned the grammar writes: other brackets, other separators and
spaces, more or fewer decimals, corners in pairs, upper and lower case, missing labels, labels where none is expected,
text around the boxes, `none.` for `None`. It never guesses a unit: a coordinate above 1 is not taken for pixels. A
broken box, such as one of three coordinates, makes the whole answer unparsed, except at the end of an answer that was
cut off.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, fsum

from griffon_shards.grammar import LABELLED_TASKS, NO_BOXES, format_answer, parse_answer
from griffon_shards.support.errors import DataError
from griffon_shards.types import BOX_STYLES, BoxXYXY

UNPARSED_REASONS = ("empty", "no_box", "broken_box", "coordinate_outside", "cut_off")
"""Why an answer is unparsed: it is empty; it has neither a box nor `None`; a broken box; a coordinate outside [0, 1];
or it ended at the limit of new tokens before its first box was complete."""

_NUMBER = r"(-?(?:[0-9]{1,5}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}))"
_COMMA, _MIDDLE = r"[\s,;]{1,4}", r"[\s,;()\[\]]{1,8}"
_TEXT_BOX = (
    rf"[\[({{<]{{1,2}}\s{{0,2}}{_NUMBER}{_COMMA}{_NUMBER}{_MIDDLE}{_NUMBER}{_COMMA}{_NUMBER}\s{{0,2}}[\])}}>]{{1,2}}"
)
_BIN = r"<\s?bin[\s_]?([0-9]{1,4})\s?>"
_BIN_BOX = r"[\[(]?" + r"[\s,;]{0,2}".join([_BIN] * 4) + r"[\])]?"
_LENIENT_BOX = re.compile(f"{_TEXT_BOX}|{_BIN_BOX}", re.IGNORECASE)
_PART_OF_BOX = re.compile(r"[\[({<]\s{0,2}-?(?:[0-9]*\.[0-9]|[0-9]+\s{0,2}[,;])|<\s?bin", re.IGNORECASE)
_NOT_A_LABEL = re.compile(rf"{_PART_OF_BOX.pattern}|\[[^\]]*\]|(?:^|&)\s*{NO_BOXES}\s*&", re.IGNORECASE)
"""What a label may not hold, unless the question does: a broken box such as `[nan,0.1]`, or `None` beside boxes."""

_AROUND_LABEL = " \t\r\n&,;:.|*\"'-–—"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredBox:
    """A box of an answer.

    Attributes:
        label: the text in front of the box, empty if there is none.
        box_xyxy: fractions of the image's sides, in [0, 1]. x1 > x2 or y1 > y2 are possible.
        start: the character at which the label, or else the box, begins.
        end: the character after the box.
    """

    label: str
    box_xyxy: BoxXYXY
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """The boxes of an answer.

    Attributes:
        boxes: in the order of the answer; empty if it is `None` or unparsed.
        strict: whether the answer is of the grammar.
        unparsed: one of `UNPARSED_REASONS`, or None if the answer was parsed.
    """

    boxes: tuple[AnsweredBox, ...] = ()
    strict: bool = False
    unparsed: str | None = None


def parse(answer: str, task: str, *, complete: bool, question: str = "") -> ParsedAnswer:
    """Read the boxes of an answer.

    Args:
        answer: the generated text.
        task: one of `griffon_shards.grammar.ANSWERED_WITH_BOXES`.
        complete: False if generation stopped at the limit of new tokens.
        question: what was asked. A label in it is a label, even if it looks like a broken box, as "a can (0.5 l)" does.
    """
    for style in BOX_STYLES:
        try:
            items = parse_answer(answer, task, style)
        except ValueError:
            continue
        # A label swallows what stands before it.
        if not any(_NOT_A_LABEL.search(f"{label}&") and label not in question for label, _ in items):
            return ParsedAnswer(boxes=tuple(_placed(items, style)), strict=True)
    return _parse_leniently(answer, task, complete)


def truth_boxes(truth: str, task: str) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes (fractions) of a rendered answer.

    Raises:
        DataError: the text is not of the grammar.
    """
    for style in BOX_STYLES:
        try:
            return parse_answer(truth, task, style)
        except ValueError:
            continue
    raise DataError(
        f"the true answer of a {task} question is not of the answer grammar: {truth!r:.200}; verify the set"
    )


def box_scores(parsed: ParsedAnswer, token_ends: Sequence[int], token_logprobs: Sequence[float]) -> tuple[float, ...]:
    """The score of each box, in [0, 1]: the square root of the probability of the tokens that write it and its label.

    Args:
        parsed: the answer.
        token_ends: for each generated token, the number of characters decoded up to and with it.
        token_logprobs: natural log-probability of each generated token.
    """
    starts = (0, *token_ends)[: len(token_ends)]
    tokens = list(zip(starts, token_ends, token_logprobs, strict=True))
    return tuple(
        exp(0.5 * min(0.0, fsum(logprob for start, end, logprob in tokens if _writes(start, end, box))))
        for box in parsed.boxes
    )


def _writes(start: int, end: int, box: AnsweredBox) -> bool:
    """Whether a token that adds characters [start, end) belongs to a box. Some tokens are a part of a character."""
    return start < box.end and max(end, start + 1) > box.start


def _placed(items: Sequence[tuple[str, BoxXYXY]], style: str) -> Iterator[AnsweredBox]:
    """The boxes of an answer of the grammar. There is one way to write each of them, so its length is known."""
    start = 0
    for label, box_xyxy in items:
        end = start + len(format_answer([(label, box_xyxy)], style))
        yield AnsweredBox(label=label, box_xyxy=box_xyxy, start=start, end=end)
        start = end + len("&")


def _parse_leniently(answer: str, task: str, complete: bool) -> ParsedAnswer:
    text = answer.strip(_AROUND_LABEL)
    if text.casefold() == NO_BOXES.casefold():
        return ParsedAnswer()
    if not text:
        return ParsedAnswer(unparsed="empty" if complete else "cut_off")
    boxes: list[AnsweredBox] = []
    position = 0
    for match in _LENIENT_BOX.finditer(answer):
        before = answer[position : match.start()]
        if _NOT_A_LABEL.search(before):
            return ParsedAnswer(unparsed="broken_box")
        box_xyxy = _coordinates(match)
        if not all(0.0 <= value <= 1.0 for value in box_xyxy):
            return ParsedAnswer(unparsed="coordinate_outside")
        label = before.strip(_AROUND_LABEL)
        start = position + before.index(label) if label else match.start()
        labelled = task in LABELLED_TASKS
        boxes.append(
            AnsweredBox(
                label=label if labelled else "",
                box_xyxy=box_xyxy,
                start=start if labelled else match.start(),
                end=match.end(),
            )
        )
        position = match.end()
    if complete and _PART_OF_BOX.search(answer, position):
        return ParsedAnswer(unparsed="broken_box")
    if not boxes:
        return ParsedAnswer(unparsed="no_box" if complete else "cut_off")
    return ParsedAnswer(boxes=tuple(boxes))


def _coordinates(match: re.Match[str]) -> BoxXYXY:
    text, bins = match.groups()[:4], match.groups()[4:]
    x1, y1, x2, y2 = (int(value) / 1000 for value in bins) if text[0] is None else (float(value) for value in text)
    return x1, y1, x2, y2
