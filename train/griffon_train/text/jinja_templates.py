"""Our chat templates in Jinja, to be saved with tokenizers, and the messages that they take.

A message is `{"role": "user" or "assistant", "content": text or parts}`, a part `{"type": "text", "text": ...}`,
`{"type": "image"}` or `{"type": "region"}`. An image is placed where the question has `<image>`, otherwise on a line of
its own before the question, as in training. A region is placed where its part is, or where the question has `<region>`.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

from griffon_shards.support.errors import DataError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, Turn
from griffon_train.text.chat_templates import NO_QUESTION, SYSTEMS, check_tokenizer
from griffon_train.text.tokenization import stands_apart

Message = Mapping[str, Any]

IMAGE_PARTS = ("image", "image_url")
"""Types of parts with an image, as transformers and OpenAI call them."""

_ROLES: Mapping[str, Literal["human", "gpt"]] = {"user": "human", "assistant": "gpt"}
_ROLE_REFUSED = "expected a message of the user or the assistant; the system prompt is part of the template"
_PART_REFUSED = "a message contains text, and a user message may also contain images and regions"


def chat_template(chat: str, tokenizer: Any) -> str:  # noqa: ANN401 - one of transformers
    """Return a Jinja template for a tokenizer. What it renders is tokenized to the same ids as `chat_templates.encode`.

    The exception is text that spells a control token: the tokenizer takes it for the control token.

    Args:
        chat: a name in `griffon_train.text.chat_templates.CHATS`.
        tokenizer: the one to be saved with the template.

    Raises:
        SettingsError: the template is unknown, or the tokenizer lacks what it needs.
    """
    check_tokenizer(chat, tokenizer)
    # Some tokenizers put a space before a text, but not after bos.
    apart = tokenizer.bos_token is not None and stands_apart(tokenizer.bos_token, tokenizer)
    constants = {
        "role_refused": _ROLE_REFUSED,
        "part_refused": _PART_REFUSED,
        "no_question": NO_QUESTION,
        "system": SYSTEMS.get(chat, ""),
        "blank": " " if apart else "",
    }
    folder = files("griffon_train.text") / "jinja"
    sources = [(folder / f"{name}.jinja").read_text(encoding="utf-8") for name in ("turns", chat)]
    return "".join(f"{{%- set {name} = {json.dumps(text)} -%}}\n" for name, text in constants.items()) + "".join(
        sources
    )


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Return messages as turns, as training sees them.

    Raises:
        DataError: the role of a message or the type of a part is unknown.
    """
    for message in messages:
        if message["role"] not in _ROLES:
            raise DataError(f"role {message['role']!r}: {_ROLE_REFUSED}")
    return [Turn(role=_ROLES[message["role"]], text=_text(message)) for message in messages]


def parts_of(messages: Sequence[Message], *types: str) -> list[Message]:
    """Return the parts of some types, in order."""
    return [
        part
        for message in messages
        if not isinstance(message["content"], str)
        for part in message["content"]
        if part["type"] in types
    ]


def _text(message: Message) -> str:
    if isinstance(message["content"], str):
        return message["content"]
    text, images = "", 0
    for part in message["content"]:
        if part["type"] == "text":
            text += part["text"]
        elif part["type"] == "region" and message["role"] == "user":
            text += REGION_TOKEN
        elif part["type"] in IMAGE_PARTS and message["role"] == "user":
            images += 1
        else:
            raise DataError(f"a part of type {part['type']!r}: {_PART_REFUSED}")
    return text if IMAGE_TOKEN in text else f"{IMAGE_TOKEN}\n" * images + text
