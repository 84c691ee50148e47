"""The chat templates that tokenizers are saved with: they give the ids that training sees."""

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Turn
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.text.chat_templates import CHATS, IMAGE_TOKEN_ID, REGION_TOKEN_ID, encode
from griffon_train.text.jinja_templates import chat_template, parts_of, turns_of

from ..small_tokenizers import byte_level, conversation
from .test_vocabularies import random_turns, vocabulary

CONVERSATIONS = 300
NAMES = {"human": "user", "gpt": "assistant"}
VOCABULARIES = [
    ("gemma_instruct", "gemma3"),
    ("llama_2", "llama2"),
    ("llama_2", "llama2 legacy"),
    ("qwen2", "qwen3"),
    ("plain", "llama2"),
    ("plain", "llama2 legacy"),
    ("plain", "gemma3"),
    ("plain", "qwen3"),
    *((chat, "bytes") for chat in CHATS),
]

every_vocabulary = pytest.mark.parametrize(("chat", "name"), VOCABULARIES)


def tokenizer_of(chat: str, name: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer() if name == "bytes" else vocabulary(name)
    tokenizer.chat_template = chat_template(chat, tokenizer)
    return tokenizer


def messages_of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [{"role": NAMES[turn.role], "content": turn.text} for turn in turns]


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], *, prompt: bool = False) -> str:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt)
    assert isinstance(text, str)
    return text


def ids_of(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, Any]], *, prompt: bool) -> list[int]:
    result: Any = tokenizer.apply_chat_template(list(messages), add_generation_prompt=prompt)
    ids: list[int] = result["input_ids"]
    return ids


@every_vocabulary
def test_conversations_without_images_have_the_ids_of_training(chat: str, name: str) -> None:
    """Whole ones, prompts, and ones whose last question has no answer."""
    tokenizer, draws = tokenizer_of(chat, name), random.Random(f"{chat} {name}")
    for _ in range(CONVERSATIONS):
        turns = random_turns(draws, spelled=False, pictures=0, regions=0)
        for some in (turns, turns[:-1]):
            assert ids_of(tokenizer, messages_of(some), prompt=False) == encode(chat, some, tokenizer).ids
        prompt = encode(chat, turns[:-1], tokenizer, prompt=True)
        assert ids_of(tokenizer, messages_of(turns[:-1]), prompt=True) == prompt.ids


@every_vocabulary
def test_images_and_regions_stand_where_training_has_them(chat: str, name: str) -> None:
    """LLaVA's rule: what is written out is split at the images, and each part tokenized as it is."""
    tokenizer, draws = tokenizer_of(chat, name), random.Random(f"{chat} {name}")
    for _ in range(CONVERSATIONS):
        pictures, regions = draws.choice((1, 1, 2)), draws.choice((0, 1))
        turns = random_turns(draws, spelled=False, pictures=pictures, regions=regions)
        turns = [
            turn if turn.role == "human" else Turn(role="gpt", text=re.sub("<(image|region)>", "", turn.text))
            for turn in turns
        ]
        text = rendered(tokenizer, messages_of(turns))
        ids: list[int] = []
        for part in re.split("(<image>|<region>)", text):
            placeholder = {"<image>": IMAGE_TOKEN_ID, "<region>": REGION_TOKEN_ID}.get(part)
            ids += tokenizer(part, add_special_tokens=False)["input_ids"] if placeholder is None else [placeholder]
        assert ids == encode(chat, turns, tokenizer, images=pictures, regions=regions).ids


TEXT = {"type": "text", "text": "How many?"}
IMAGE, REGION = {"type": "image"}, {"type": "region"}
CONTENTS: Sequence[tuple[Any, str]] = [
    ("<image>\nHow many?", "<image>\nHow many?"),
    ("How many <image>?", "How many <image>?"),
    ([TEXT], "How many?"),
    ([IMAGE, TEXT], "<image>\nHow many?"),
    ([TEXT, IMAGE], "<image>\nHow many?"),
    ([TEXT, {"type": "image_url"}], "<image>\nHow many?"),
    ([IMAGE, TEXT, TEXT], "<image>\nHow many?How many?"),
    ([IMAGE, IMAGE, TEXT], "<image>\n<image>\nHow many?"),
    ([IMAGE, {"type": "text", "text": "See <image>."}], "See <image>."),
    ([IMAGE, TEXT, REGION], "<image>\nHow many?<region>"),
    ([REGION, TEXT, IMAGE], "<image>\n<region>How many?"),
    ([IMAGE], "<image>\n"),
    ([], ""),
]
"""What a message of the user may hold, and the question that training would have."""


@pytest.mark.parametrize(("content", "question"), CONTENTS)
@pytest.mark.parametrize("chat", list(CHATS))
def test_the_parts_of_a_message_become_a_question(chat: str, content: object, question: str) -> None:
    tokenizer = tokenizer_of(chat, "bytes")
    messages = [{"role": "user", "content": content}]
    assert turns_of(messages) == conversation(question)
    as_text = [{"role": "user", "content": question}]
    assert rendered(tokenizer, messages, prompt=True) == rendered(tokenizer, as_text, prompt=True)


def test_parts_come_in_their_order() -> None:
    first, second = {"type": "image", "url": "a"}, {"type": "image", "url": "b"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [first, TEXT]},
        {"role": "assistant", "content": "<image>"},
        {"role": "user", "content": [TEXT, second]},
    ]
    assert parts_of(messages, "image") == [first, second]


@pytest.mark.parametrize("chat", list(CHATS))
@pytest.mark.parametrize(
    "roles", ["gpt", "gpt human gpt", "human human gpt", "human gpt gpt human", "gpt gpt human human gpt gpt"]
)
def test_turns_of_one_role_in_a_row_are_one(chat: str, roles: str) -> None:
    tokenizer = tokenizer_of(chat, "bytes")
    turns = [Turn(role="gpt" if role == "gpt" else "human", text=f"{n}") for n, role in enumerate(roles.split())]
    assert ids_of(tokenizer, messages_of(turns), prompt=False) == encode(chat, turns, tokenizer).ids


@pytest.mark.parametrize("chat", list(CHATS))
@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "system", "content": "Be brief."}], "the system prompt is part of the template"),
        ([{"role": "tool", "content": "3"}], "expected a message of the user or the assistant"),
        ([{"role": "user", "content": [{"type": "video"}]}], "a message contains text, and a user message"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": [IMAGE]}], "a message contains text"),
    ],
)
def test_what_training_never_has_is_refused(chat: str, messages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        rendered(tokenizer_of(chat, "bytes"), messages)
    with pytest.raises(DataError, match=message):
        turns_of(messages)


@pytest.mark.parametrize("chat", list(CHATS))
def test_a_prompt_ends_with_a_question(chat: str) -> None:
    for turns in (conversation("a", "b"), [Turn(role="gpt", text="b")]):
        with pytest.raises(TemplateError, match="must end with a question"):
            rendered(tokenizer_of(chat, "bytes"), messages_of(turns), prompt=True)


@pytest.mark.parametrize(("chat", "name"), [*((chat, "bytes") for chat in CHATS), ("llama_2", "llama2")])
def test_it_is_saved_with_the_tokenizer(chat: str, name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(chat, name)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    turns = conversation("  两  \n", "b ", " c")
    assert ids_of(again, messages_of(turns), prompt=True) == encode(chat, turns, tokenizer, prompt=True).ids


def test_a_tokenizer_that_lacks_control_tokens_gets_no_template() -> None:
    with pytest.raises(SettingsError, match="has no control token <start_of_turn>"):
        chat_template("gemma_instruct", byte_level(special=["<s>"]))


def test_plain_works_without_bos() -> None:
    tokenizer = byte_level(bos=None)
    tokenizer.chat_template = chat_template("plain", tokenizer)
    turns = conversation("<image>a", "b", "c", "d")
    assert rendered(tokenizer, messages_of(turns)) == "<image>b\nd\n"
