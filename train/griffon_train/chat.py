"""Chat templates: how a conversation becomes tokens. The model families' own come with the model; `turns` has none.

A template gets `<image>` as text in its first question and gives one token in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from griffon_shards.types import IMAGE_TOKEN, Turn

PICTURE_TOKEN = -200
"""Stands for the picture in token ids: no vocabulary has it."""


class Tokenizer(Protocol):
    """What is asked of a tokenizer of transformers."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text."""


def encode_turns(turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
    """The turns one after the other, without any marks between them."""
    ids: list[int] = []
    for turn in turns:
        before, picture, after = turn.text.partition(IMAGE_TOKEN) if turn.role == "human" else (turn.text, "", "")
        for text in (before, after):
            ids += tokenizer.encode(text, add_special_tokens=False) if text else []
        ids += [PICTURE_TOKEN] if picture else []
    return ids


CHATS: Mapping[str, Callable[[Sequence[Turn], Tokenizer], list[int]]] = {"turns": encode_turns}
"""Templates by name."""
