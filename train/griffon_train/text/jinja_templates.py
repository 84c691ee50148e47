"""Our chat templates once more, in Jinja, as tokenizers are saved with them; and the messages that those take.

A message is `{"role": "user" or "assistant", "content": text or parts}`, a part `{"type": "text", "text": ...}`,
`{"type": "image"}` or `{"type": "region"}`. A picture stands where the question has `<image>`, else in front of it on a
line of its own, as in training; a region where its part is, or where the question has `<region>`.
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
    """A template in Jinja for a tokenizer: what it renders has the ids that `chat_templates.encode` gives.

    That is so unless a text spells a control token, which a tokenizer takes for one.

    Args:
        chat: a name of `griffon_train.text.chat_templates.CHATS`.
        tokenizer: that is to be saved with it.

    Raises:
        SettingsError: there is no such template, or the tokenizer lacks what it needs.
    """
    check_tokenizer(chat, tokenizer)
    # Some tokenizers begin a text with a blank, and leave it out behind bos.
    apart = tokenizer.bos_token is not None and stands_apart(tokenizer.bos_token, tokenizer)
    said = {
        "role_refused": _ROLE_REFUSED,
        "part_refused": _PART_REFUSED,
        "no_question": NO_QUESTION,
        "system": SYSTEMS.get(chat, ""),
        "blank": " " if apart else "",
    }
    folder = files("griffon_train.text") / "jinja"
    written = [(folder / f"{name}.jinja").read_text(encoding="utf-8") for name in ("turns", chat)]
    return "".join(f"{{%- set {name} = {json.dumps(text)} -%}}\n" for name, text in said.items()) + "".join(written)


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """Messages as the turns that training sees.

    Raises:
        DataError: a role or a part is none that there is.
    """
    for message in messages:
        if message["role"] not in _ROLES:
            raise DataError(f"role {message['role']!r}: {_ROLE_REFUSED}")
    return [Turn(role=_ROLES[message["role"]], text=_text(message)) for message in messages]


def parts_of(messages: Sequence[Message], *types: str) -> list[Message]:
    """Parts of some types, in their order."""
    return [
        part
        for each in messages
        if not isinstance(each["content"], str)
        for part in each["content"]
        if part["type"] in types
    ]


def _text(message: Message) -> str:
    if isinstance(message["content"], str):
        return message["content"]
    text, pictures = "", 0
    for part in message["content"]:
        if part["type"] == "text":
            text += part["text"]
        elif part["type"] == "region" and message["role"] == "user":
            text += REGION_TOKEN
        elif part["type"] in IMAGE_PARTS and message["role"] == "user":
            pictures += 1
        else:
            raise DataError(f"a part of type {part['type']!r}: {_PART_REFUSED}")
    return text if IMAGE_TOKEN in text else f"{IMAGE_TOKEN}\n" * pictures + text
