"""Turn text segments of a conversation into token ids and labels, and truncate them to the maximum length.

As in LLaVA, all text between two images is tokenized at once. A segment tokenized alone may give other tokens than
within the text, so targets are determined from the tokens' offsets in the text.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

from griffon_shards.support.errors import DataError, SettingsError

IGNORE = -100
"""The label of a token that is not a target."""

IMAGE_TOKEN_ID = -200
"""Placeholder for the image in token ids; no vocabulary has a negative id."""

REGION_TOKEN_ID = -201
"""Placeholder for the region in token ids."""

OVERLONG = ("truncate", "mask", "error")
"""Ways to handle a sample that is longer than allowed."""


class Tokenizer(Hashable, Protocol):
    """The part of a transformers tokenizer that is used here."""

    def __call__(
        self,
        text: str,
        *,
        add_special_tokens: bool,
        split_special_tokens: bool,
        return_offsets_mapping: bool,
        return_attention_mask: bool,
        verbose: bool,
    ) -> Any:  # noqa: ANN401 - a dict of its own kind
        """Return `input_ids`, and `offset_mapping`: the first character of each token and the one past its last."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens that are matched in text before all others, by id: `content`, and whether they are `special`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A conversation as token ids and labels.

    Attributes:
        ids: token ids, with `IMAGE_TOKEN_ID` for an image and `REGION_TOKEN_ID` for a region.
        labels: same length as `ids`; the id itself for a target, else `IGNORE`.
    """

    ids: list[int]
    labels: list[int]

    @property
    def targets(self) -> int:
        """Number of target tokens; the first token is never one, because nothing precedes it."""
        return sum(label != IGNORE for label in self.labels[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSegment:
    """A part of a conversation.

    Attributes:
        text: the text; for a control token, its name; for a placeholder, empty.
        control: whether it is a control token; other text of the same spelling is plain text.
        target: whether it is a training target.
        place: the placeholder, `IMAGE_TOKEN_ID` or `REGION_TOKEN_ID`, or None.
    """

    text: str = ""
    control: bool = False
    target: bool = False
    place: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTokens:
    """Control tokens of a tokenizer.

    Attributes:
        bos: the id that every conversation begins with, or None.
        marks: ids of those that the template sets, by name.
        special: ids of all that text must not become.
        apart: whether text after a control token has other tokens than the same text alone.
    """

    bos: int | None
    marks: Mapping[str, int]
    special: frozenset[int]
    apart: bool


def stands_apart(mark: str, tokenizer: Tokenizer) -> bool:
    """Return whether text after a control token has other tokens than alone, where it may get a space in front."""
    behind, _ = _tokens(f"{mark}a", tokenizer, as_text=False)
    alone, _ = _tokens("a", tokenizer, as_text=False)
    return behind[1:] != alone


def encode_pieces(pieces: Iterable[TextSegment], tokenizer: Tokenizer, controls: ControlTokens) -> Encoded:
    """Return token ids and labels of a conversation, beginning with bos."""
    ids: list[int] = [] if controls.bos is None else [controls.bos]
    labels = [IGNORE] * len(ids)
    for placeholder, stretch in groupby(pieces, lambda piece: piece.place):
        if placeholder is None:
            of_text = _encode_stretch(list(stretch), tokenizer, controls)
            ids += of_text.ids
            labels += of_text.labels
        else:
            repeated = [placeholder for _ in stretch]
            ids += repeated
            labels += [IGNORE] * len(repeated)
    return Encoded(ids=ids, labels=labels)


def expand_and_truncate(
    encoded: Encoded, max_length: int, overlong: str, image_tokens: int, where: str
) -> tuple[Encoded, bool]:
    """Expand images to their tokens, and truncate what is longer than allowed.

    Args:
        encoded: a conversation with one `IMAGE_TOKEN_ID` per image.
        max_length: maximum number of tokens, including those of images.
        overlong: one of `OVERLONG`: truncate it, truncate it without targets, or raise an error.
        image_tokens: tokens per image; an image that does not fit completely is dropped.
        where: location of the sample, for the message.

    Returns:
        The conversation with `image_tokens` times `IMAGE_TOKEN_ID` per image, and whether it was too long.

    Raises:
        DataError: it is too long, and `overlong` is `error`.
        SettingsError: `overlong` is none of `OVERLONG`.
    """
    if overlong not in OVERLONG:
        raise SettingsError(f"overlong samples: expected {', '.join(OVERLONG)}, got {overlong!r}")
    length = len(encoded.ids) + (image_tokens - 1) * encoded.ids.count(IMAGE_TOKEN_ID)
    too_long = length > max_length
    if too_long and overlong == "error":
        raise DataError(
            f"{where}: {length:,} tokens including images, but at most {max_length:,} are allowed; raise --max-length, "
            "or use --overlong truncate or mask"
        )
    ids: list[int] = []
    labels: list[int] = []
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        takes = image_tokens if token == IMAGE_TOKEN_ID else 1
        if len(ids) + takes > max_length:
            break
        ids += [token] * takes
        labels += [label] * takes
    if too_long and overlong == "mask":
        labels = [IGNORE] * len(ids)
    return Encoded(ids=ids, labels=labels), too_long


def _encode_stretch(pieces: Sequence[TextSegment], tokenizer: Tokenizer, controls: ControlTokens) -> Encoded:
    """Encode the text between two images at once, unless some of it spells a control token."""
    text = "".join(piece.text for piece in pieces)
    if not text:
        return Encoded(ids=[], labels=[])
    end = 0
    marks = []
    for piece in pieces:
        begin, end = end, end + len(piece.text)
        if piece.control:
            marks.append((controls.marks[piece.text], (begin, end)))
    ids, spans = _tokens(text, tokenizer, as_text=False)
    marks_in_ids = [(token, span) for token, span in zip(ids, spans, strict=True) if token in controls.special]
    if marks_in_ids == marks:
        return Encoded(ids=ids, labels=_labels(ids, spans, pieces))
    return _encode_around_marks(pieces, tokenizer, controls)


def _encode_around_marks(pieces: Sequence[TextSegment], tokenizer: Tokenizer, controls: ControlTokens) -> Encoded:
    """Encode control tokens by their ids, and all else as text, even text that spells a control token."""
    ids: list[int] = []
    labels: list[int] = []
    for is_control, group in groupby((piece for piece in pieces if piece.text), lambda piece: piece.control):
        parts = list(group)
        if is_control:
            marks = [controls.marks[part.text] for part in parts]
            ids += marks
            labels += [mark if part.target else IGNORE for mark, part in zip(marks, parts, strict=True)]
        else:
            tokens = _tokens_after_mark if ids and controls.apart else _tokens
            of_text, spans = tokens("".join(part.text for part in parts), tokenizer, as_text=True)
            ids += of_text
            labels += _labels(of_text, spans, parts)
    return Encoded(ids=ids, labels=labels)


def _tokens(text: str, tokenizer: Tokenizer, *, as_text: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return ids and offsets of a text's tokens. With `as_text`, none of them is a control token."""
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=as_text,  # always passed, because a tokenizer may have a default of its own
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,  # no warnings about length: `expand_and_truncate` handles it
    )
    return encoded["input_ids"], encoded["offset_mapping"]


def _tokens_after_mark(text: str, tokenizer: Tokenizer, *, as_text: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """As `_tokens`, without the space before the text: a newline is put before it, gets the space, and is removed."""
    ids, spans = _tokens(f"\n{text}", tokenizer, as_text=as_text)
    skipped = sum(end <= 1 for _, end in spans)
    if skipped == len(ids) or spans[skipped][0] < 1:  # the newline has merged with the text
        return _tokens(text, tokenizer, as_text=as_text)
    return ids[skipped:], [(begin - 1, end - 1) for begin, end in spans[skipped:]]


def _labels(ids: Sequence[int], spans: Sequence[tuple[int, int]], pieces: Sequence[TextSegment]) -> list[int]:
    """Return the labels of a text's tokens: a token is a target if any of its characters is.

    Some tokenizers exclude leading spaces from a token's offsets, so each token starts where the previous one ends.
    """
    learned = bytearray()
    for piece in pieces:
        learned += (b"\1" if piece.target else b"\0") * len(piece.text)
    labels = []
    previous_end = 0
    for token, (begin, end) in zip(ids, spans, strict=True):
        labels.append(token if 1 in learned[min(begin, previous_end) : end] else IGNORE)
        previous_end = max(previous_end, end)
    return labels
