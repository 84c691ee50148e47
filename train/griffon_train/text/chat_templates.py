"""Chat templates: how a conversation becomes token ids, and which tokens are targets.

A template is a pure function from turns to text segments. `plain` is for aligning the projector; the others are the
formats that the language models were released with.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, Turn
from griffon_train.text.tokenization import (
    IGNORE,
    IMAGE_TOKEN_ID,
    OVERLONG,
    REGION_TOKEN_ID,
    ControlTokens,
    Encoded,
    TextSegment,
    Tokenizer,
    encode_pieces,
    expand_and_truncate,
    stands_apart,
)

__all__ = [
    "CHATS",
    "IGNORE",
    "IMAGE_TOKEN_ID",
    "NO_QUESTION",
    "OVERLONG",
    "REGION_TOKEN_ID",
    "SYSTEMS",
    "Encoded",
    "Tokenizer",
    "check_tokenizer",
    "encode",
    "encode_sample",
    "end_tokens",
    "ends_line",
    "expand_and_truncate",
]

Template = Callable[[Sequence[Turn], int, int, bool], Iterable[TextSegment]]
"""Takes alternating turns, the number of images, the number of regions, and whether it is a prompt."""

# From the code that Llama 2 was released with; the double space is in the original.
_LLAMA_2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
SYSTEMS: Mapping[str, str] = {"llama_2": _LLAMA_2_SYSTEM, "qwen2": "You are a helpful assistant."}
"""System prompts, by template."""

NO_QUESTION = "the conversation must end with a question, for the model to answer it"

_PLACEHOLDERS = {IMAGE_TOKEN: IMAGE_TOKEN_ID, REGION_TOKEN: REGION_TOKEN_ID}


def encode(
    chat: str, turns: Sequence[Turn], tokenizer: Tokenizer, *, images: int = 0, regions: int = 0, prompt: bool = False
) -> Encoded:
    """Token ids and labels of a conversation.

    The first `<image>` and `<region>` in questions stand for images and regions. Further ones are plain text, as is
    text that spells a control token. Model turns before the first question are skipped. Consecutive turns of one role
    are joined by newlines. A question without an answer is kept, without targets.

    Args:
        chat: a name in `CHATS`.
        turns: the conversation.
        tokenizer: a transformers tokenizer that reports token offsets.
        images: number of images.
        regions: number of regions.
        prompt: encode for generation: no targets, and the ids end where the model's answer begins.

    Raises:
        SettingsError: as for `check_tokenizer`.
        DataError: the questions lack `<image>` or `<region>`, or a prompt does not end with a question.
    """
    controls = _controls(chat, tokenizer)
    alternating = _alternating(turns)
    if prompt and not (alternating and alternating[-1].role == "human"):
        raise DataError(NO_QUESTION)
    encoded = encode_pieces(CHATS[chat](alternating, images, regions, prompt), tokenizer, controls)
    return Encoded(ids=encoded.ids, labels=[IGNORE] * len(encoded.ids)) if prompt else encoded


def check_tokenizer(chat: str, tokenizer: object) -> None:
    """Check that a tokenizer fits a template, before any sample is read.

    Raises:
        SettingsError: the template is unknown, or the tokenizer lacks a control token or token offsets.
    """
    _controls(chat, tokenizer)


def end_tokens(chat: str, tokenizer: Any) -> list[int]:  # noqa: ANN401 - one of transformers
    """Return the tokens that end a model's answer: the template's end mark, or all tokens that end a line.

    Raises:
        SettingsError: as `check_tokenizer`.
    """
    controls = _controls(chat, tokenizer)
    if chat in _ENDS:
        return [controls.marks[_ENDS[chat]]]
    return [token for token in range(len(tokenizer)) if ends_line(token, tokenizer)]


def ends_line(token: int, tokenizer: Any) -> bool:  # noqa: ANN401 - one of transformers
    """Return whether a token's text ends with a newline."""
    return str(tokenizer.decode([token])).endswith("\n")


@lru_cache(maxsize=8)
def _controls(chat: str, tokenizer: Any) -> ControlTokens:  # noqa: ANN401 - checked below
    """Return the control tokens; cached, because listing a tokenizer's added tokens takes milliseconds."""
    if chat not in CHATS:
        raise SettingsError(f"unknown chat template {chat!r}; expected one of {', '.join(CHATS)}")
    kind = type(tokenizer).__name__
    if not getattr(tokenizer, "is_fast", False):
        raise SettingsError(
            f"chat template {chat}: {kind} does not report token offsets; use a fast tokenizer, "
            "one with a tokenizer.json"
        )
    remedy = "use the tokenizer of the template's language model, or another template"
    special = {added.content: token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    for mark in _MARKS[chat]:
        if mark not in special:
            raise SettingsError(f"chat template {chat}: {kind} has no control token {mark}; {remedy}")
    bos = None if chat in _WITHOUT_BOS else tokenizer.bos_token_id
    if bos is None and chat in _NEED_BOS:
        raise SettingsError(f"chat template {chat}: {kind} has no bos_token; {remedy}")
    marks = {mark: special[mark] for mark in _MARKS[chat]}
    apart = any(stands_apart(mark, tokenizer) for mark in marks)
    return ControlTokens(bos=bos, marks=marks, special=frozenset(special.values()), apart=apart)


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    joined = [
        Turn(role=role, text="\n".join(turn.text for turn in group))
        for role, group in groupby(turns, lambda turn: turn.role)
    ]
    return joined[1:] if joined and joined[0].role == "gpt" else joined


def _plain(turns: Sequence[Turn], pictures: int, regions: int, _prompt: bool) -> Iterator[TextSegment]:
    """Images and captions. Questions are dropped, so images need no `<image>` in them."""
    yield from [TextSegment(place=IMAGE_TOKEN_ID)] * pictures + [TextSegment(place=REGION_TOKEN_ID)] * regions
    for turn in turns:
        if turn.role == "gpt":
            yield TextSegment(text=f"{turn.text}\n", target=True)


def _gemma_instruct(turns: Sequence[Turn], pictures: int, regions: int, prompt: bool) -> Iterator[TextSegment]:
    start = TextSegment(text="<start_of_turn>", control=True)
    for turn, segments in _segmented(turns, pictures, regions):
        answer = turn.role == "gpt"
        yield start
        yield TextSegment(text="model\n" if answer else "user\n")
        yield from segments
        yield TextSegment(text="<end_of_turn>", control=True, target=answer)
        yield TextSegment(text="\n", target=answer)
    if prompt:
        yield start
        yield TextSegment(text="model\n")


def _llama_2(turns: Sequence[Turn], pictures: int, regions: int, _prompt: bool) -> Iterator[TextSegment]:
    """The space before an answer merges with its first token and is thus learned; prompts end with `[/INST]`."""
    for index, (turn, segments) in enumerate(_segmented(turns, pictures, regions)):
        if turn.role == "human":
            if index:
                yield TextSegment(text="<s>", control=True)
            yield TextSegment(text="[INST] " if index else f"[INST] <<SYS>>\n{SYSTEMS['llama_2']}\n<</SYS>>\n\n")
            yield from segments
            yield TextSegment(text=" [/INST]")
        else:
            yield TextSegment(text=" ", target=True)
            yield from segments
            yield TextSegment(text=" ", target=True)
            yield TextSegment(text="</s>", control=True, target=True)


def _qwen2(turns: Sequence[Turn], pictures: int, regions: int, prompt: bool) -> Iterator[TextSegment]:
    """ChatML."""
    start = TextSegment(text="<|im_start|>", control=True)
    yield start
    yield TextSegment(text=f"system\n{SYSTEMS['qwen2']}")
    yield TextSegment(text="<|im_end|>", control=True)
    yield TextSegment(text="\n")
    for turn, segments in _segmented(turns, pictures, regions):
        answer = turn.role == "gpt"
        yield start
        yield TextSegment(text="assistant\n" if answer else "user\n")
        yield from segments
        yield TextSegment(text="<|im_end|>", control=True, target=answer)
        yield TextSegment(text="\n")
    if prompt:
        yield start
        yield TextSegment(text="assistant\n")


CHATS: Mapping[str, Template] = {
    "plain": _plain,
    "gemma_instruct": _gemma_instruct,
    "llama_2": _llama_2,
    "qwen2": _qwen2,
}
"""Templates by name."""

_MARKS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "gemma_instruct": ("<start_of_turn>", "<end_of_turn>"),
    "llama_2": ("<s>", "</s>"),
    "qwen2": ("<|im_start|>", "<|im_end|>"),
}
"""Control tokens that a template sets, besides bos."""

_ENDS: Mapping[str, str] = {"gemma_instruct": "<end_of_turn>", "llama_2": "</s>", "qwen2": "<|im_end|>"}
"""The control token that ends an answer; other templates end it with a newline, which many tokens may contain."""

_NEED_BOS = ("gemma_instruct", "llama_2")
_WITHOUT_BOS = ("qwen2",)


def _segmented(turns: Sequence[Turn], pictures: int, regions: int) -> list[tuple[Turn, list[TextSegment]]]:
    """Return each turn with the segments of its text."""
    left = {IMAGE_TOKEN: pictures, REGION_TOKEN: regions}
    pairs = [(turn, _segments(turn, left)) for turn in turns]
    missing = " and ".join(f"{count} {mark}" for mark, count in left.items() if count)
    if missing:
        raise DataError(f"the questions lack {missing} for {pictures} image(s) and {regions} region(s)")
    return pairs


def _segments(turn: Turn, left: dict[str, int]) -> list[TextSegment]:
    """Split a turn's text into segments; `left` counts the placeholders that are still to be found."""
    if turn.role == "gpt":
        return [TextSegment(text=turn.text, target=True)]
    segments = []
    for part in re.split(f"({IMAGE_TOKEN}|{REGION_TOKEN})", turn.text):
        if left.get(part):
            left[part] -= 1
            segments.append(TextSegment(place=_PLACEHOLDERS[part]))
        else:
            segments.append(TextSegment(text=part))
    return segments


def encode_sample(
    turns: Sequence[Turn],
    images: int,
    regions: int,
    where: str,
    *,
    chat: str,
    tokenizer: Tokenizer,
    max_length: int,
    overlong: str,
    image_tokens: int,
) -> tuple[Encoded, bool]:
    """Encode a sample, with its image expanded, and return whether it was too long.

    Raises:
        DataError: the conversation lacks `<image>` or `<region>`, or is too long and `overlong` is `error`.
    """
    try:
        encoded = encode(chat, turns, tokenizer, images=images, regions=regions)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return expand_and_truncate(encoded, max_length, overlong, image_tokens, where)
