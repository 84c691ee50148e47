"""Chat templates, token by token: what training shows the model, what it has to learn, and what is refused."""

import re

import pytest
from transformers import ByT5Tokenizer

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Turn
from griffon_train.text.chat_templates import CHATS, IGNORE, check_tokenizer, encode

from ..small_tokenizers import MARKS, byte_level, conversation, shown

TOKENIZER = byte_level()

SYSTEM = (
    "<<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
    "content. Please ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does "
    "not make any sense, or is not factually coherent, explain why instead of answering something not correct. If you "
    "don't know the answer to a question, please don't share false information.\n<</SYS>>\n\n"
)
CHATML = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"

ROUNDS = {
    "plain": "<s>🖼«Four cats.\nNo.\n»",
    "gemma_instruct": "<s><start_of_turn>user\n🖼\nHow many?<end_of_turn>\n"
    "<start_of_turn>model\n«Four cats.<end_of_turn>\n»"
    "<start_of_turn>user\nA dog? <end_of_turn>\n"
    "<start_of_turn>model\n«No.<end_of_turn>\n»",
    "llama_2": f"<s>[INST] {SYSTEM}🖼\nHow many? [/INST]« Four cats. </s>»<s>[INST] A dog?  [/INST]« No. </s>»",
    "qwen2": CHATML + "<|im_start|>user\n🖼\nHow many?<|im_end|>\n"
    "<|im_start|>assistant\n«Four cats.<|im_end|>»\n"
    "<|im_start|>user\nA dog? <|im_end|>\n"
    "<|im_start|>assistant\n«No.<|im_end|>»\n",
}
"""As written by hand, from what the models were released with."""

every_chat = pytest.mark.parametrize("chat", list(CHATS))
chat_with_questions = pytest.mark.parametrize("chat", [chat for chat in CHATS if chat != "plain"])


def test_the_templates_are_these() -> None:
    assert list(CHATS) == ["plain", "gemma_instruct", "llama_2", "qwen2"]


@every_chat
def test_two_rounds_about_an_image(chat: str) -> None:
    turns = conversation("<image>\nHow many?", "Four cats.", "A dog? ", "No.")
    assert shown(encode(chat, turns, TOKENIZER, images=1), TOKENIZER) == ROUNDS[chat]


def test_the_ids_are_the_tokenizers_own() -> None:
    """The layout of `qwen2` once more, by numbers."""

    def ids(text: str) -> list[int]:
        return list(TOKENIZER(text)["input_ids"])

    start, end = (TOKENIZER.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>"))
    encoded = encode("qwen2", conversation("<image>a<region>", "b"), TOKENIZER, images=1, regions=1)
    system = [start, *ids("system\nYou are a helpful assistant."), end, *ids("\n")]
    question = [start, *ids("user\n"), -200, *ids("a"), -201, end, *ids("\n")]
    header = [start, *ids("assistant\n")]
    assert encoded.ids == [*system, *question, *header, *ids("b"), end, *ids("\n")]
    unlearned = len(system) + len(question) + len(header)
    assert encoded.labels == [-100] * unlearned + [*ids("b"), end, -100]


PROMPTS = {
    "plain": "<s>🖼Four cats.\n",
    "gemma_instruct": ROUNDS["gemma_instruct"].replace("«No.<end_of_turn>\n»", ""),
    "llama_2": ROUNDS["llama_2"].replace("« No. </s>»", ""),
    "qwen2": ROUNDS["qwen2"].replace("«No.<|im_end|>»\n", ""),
}


@every_chat
def test_a_prompt_ends_where_the_answer_begins(chat: str) -> None:
    turns = conversation("<image>\nHow many?", "Four cats.", "A dog? ")
    prompt = encode(chat, turns, TOKENIZER, images=1, prompt=True)
    assert shown(prompt, TOKENIZER) == re.sub("[«»]", "", PROMPTS[chat])
    whole = encode(chat, [*turns, Turn(role="gpt", text="No.")], TOKENIZER, images=1)
    assert whole.ids[: len(prompt.ids)] == prompt.ids
    learned = [label for label in whole.labels[len(prompt.ids) :] if label != IGNORE]
    assert learned == whole.ids[len(prompt.ids) :][: len(learned)]  # at once, and up to the end mark


@every_chat
@pytest.mark.parametrize("turns", [(), ("Is it?", "Yes.")])
def test_a_prompt_without_a_question_is_refused(chat: str, turns: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="must end with a question"):
        encode(chat, conversation(*turns), TOKENIZER, prompt=True)


EMPTY_ANSWERS = {
    "plain": "<s>«\n\n»",
    "gemma_instruct": "«<end_of_turn>\n»",
    "llama_2": "«  </s>»",
    "qwen2": "«<|im_end|>»",
}


@every_chat
def test_an_empty_answer_is_learned_as_its_end(chat: str) -> None:
    actual = shown(encode(chat, conversation("a", "", "", ""), TOKENIZER), TOKENIZER)
    assert actual.count(EMPTY_ANSWERS[chat]) == (1 if chat == "plain" else 2)
    assert actual.count("«") == actual.count(EMPTY_ANSWERS[chat])


def turns_of(written: str) -> list[Turn]:
    """Make turns from texts that begin with `h` or `g`, with spaces between."""
    return [Turn(role="human" if turn[0] == "h" else "gpt", text=turn[1:]) for turn in written.split(" ") if turn]


@every_chat
@pytest.mark.parametrize(
    ("written", "as_if"),
    [
        ("gHi! ha gb", "ha gb"),
        ("gHi! gHo! ha gb", "ha gb"),
        ("ha hb gc", "ha\nb gc"),
        ("ha gb gc hd ge", "ha gb\nc hd ge"),
        ("h<image>a hb gc hd he gf", "h<image>a\nb gc hd\ne gf"),
        ("ha h<image> gb", "ha\n<image> gb"),
        ("gHi!", ""),
    ],
)
def test_whatever_prep_accepts_becomes_human_and_model_in_turns(chat: str, written: str, as_if: str) -> None:
    pictures = written.count("<image>")
    actual, expected = (encode(chat, turns_of(item), TOKENIZER, images=pictures) for item in (written, as_if))
    assert actual == expected


UNANSWERED = {
    "plain": "<s>«b\n»",
    "gemma_instruct": "«b<end_of_turn>\n»<start_of_turn>user\nc<end_of_turn>\n",
    "llama_2": "« b </s>»<s>[INST] c [/INST]",
    "qwen2": "«b<|im_end|>»\n<|im_start|>user\nc<|im_end|>\n",
}


@every_chat
def test_a_question_without_an_answer_is_shown_and_not_learned(chat: str) -> None:
    actual = shown(encode(chat, conversation("a", "b", "c"), TOKENIZER), TOKENIZER)
    assert actual.endswith(UNANSWERED[chat])
    assert actual.count("«") == 1


NOTHING = {"plain": "<s>", "gemma_instruct": "<s>", "llama_2": "<s>", "qwen2": CHATML}


@every_chat
def test_no_turns_at_all_teach_nothing(chat: str) -> None:
    assert shown(encode(chat, [], TOKENIZER), TOKENIZER) == NOTHING[chat]


@chat_with_questions
@pytest.mark.parametrize(
    ("question", "pictures", "regions", "expected"),
    [
        ("<image>\na", 1, 0, "🖼\na"),
        ("a <image> b <image> c", 2, 0, "a 🖼 b 🖼 c"),
        ("a <image> b <image>", 1, 0, "a 🖼 b <image>"),
        ("<image>", 0, 0, "<image>"),
        ("<image><image><image>", 2, 0, "🖼🖼<image>"),
        ("<image>\nlike <region>, <region>", 1, 1, "🖼\nlike ✂, <region>"),
        ("<region><image>", 1, 1, "✂🖼"),
        ("<region>", 0, 0, "<region>"),
    ],
)
def test_images_and_regions_stand_where_questions_name_them(
    chat: str, question: str, pictures: int, regions: int, expected: str
) -> None:
    turns = conversation("x", "<image> <region>", question, "<region> <image>")
    actual = shown(encode(chat, turns, TOKENIZER, images=pictures, regions=regions), TOKENIZER)
    assert f"{expected}<" in actual or f"{expected} [/INST]" in actual
    assert actual.count("🖼") == pictures
    assert actual.count("✂") == regions
    assert "<image> <region>" in actual
    assert "<region> <image>" in actual


def test_plain_has_images_in_front_wherever_they_were() -> None:
    """Also if no question names them."""
    for question in ("a <image> b", "a", "<image><image> <region>"):
        encoded = encode("plain", conversation(question, "x <image>"), TOKENIZER, images=2, regions=1)
        assert shown(encoded, TOKENIZER) == "<s>🖼🖼✂«x <image>\n»"


@chat_with_questions
@pytest.mark.parametrize(
    ("pictures", "regions", "message"),
    [
        (2, 0, "lack 1 <image> for 2 image(s) and 0 region(s)"),
        (1, 3, "lack 3 <region> for 1 image(s) and 3 region(s)"),
        (2, 1, "lack 1 <image> and 1 <region> for"),
    ],
)
def test_an_image_without_a_place_is_reported(chat: str, pictures: int, regions: int, message: str) -> None:
    turns = [Turn(role="gpt", text="<image>"), *conversation("<image>\na", "<image> <region>")]
    with pytest.raises(DataError, match=re.escape(message)):
        encode(chat, turns, TOKENIZER, images=pictures, regions=regions)


def test_plain_begins_with_bos_only_where_there_is_one() -> None:
    """`qwen2` never does."""
    without = byte_level(bos=None)
    assert shown(encode("plain", conversation("a", "b"), without), without) == "«b\n»"
    assert shown(encode("qwen2", conversation("a", "b"), TOKENIZER), TOKENIZER).startswith(CHATML)


@pytest.mark.parametrize("chat", ["gemma_instruct", "llama_2"])
def test_a_tokenizer_without_bos_is_refused(chat: str) -> None:
    tokenizer = byte_level(bos=None, special=["<s>", *MARKS])
    with pytest.raises(SettingsError, match=rf"^chat template {chat}: TokenizersBackend has no .*; "):
        check_tokenizer(chat, tokenizer)


@pytest.mark.parametrize(
    ("chat", "mark"),
    [
        ("gemma_instruct", "<start_of_turn>"),
        ("gemma_instruct", "<end_of_turn>"),
        ("llama_2", "</s>"),
        ("llama_2", "<s>"),
        ("qwen2", "<|im_start|>"),
        ("qwen2", "<|im_end|>"),
    ],
)
def test_a_tokenizer_without_a_templates_control_token_is_refused(chat: str, mark: str) -> None:
    """So is one whose control token cannot be distinguished from text of the same spelling."""
    for bos in ("<s>", "<bos>"):
        check_tokenizer(chat, byte_level(bos=bos, special=[*MARKS, "<s>"]))
    lacking = byte_level(bos="<bos>", special=[item for item in [*MARKS, "<s>"] if item != mark])
    message = rf"^chat template {chat}: TokenizersBackend has no control token {re.escape(mark)}; use the tokenizer of"
    with pytest.raises(SettingsError, match=message):
        check_tokenizer(chat, lacking)
    with pytest.raises(SettingsError, match=message):
        encode(chat, conversation("a", "b"), lacking)
    as_word = byte_level(bos="<bos>", special=[item for item in [*MARKS, "<s>"] if item != mark])
    as_word.add_tokens([mark])
    with pytest.raises(SettingsError, match=message):
        check_tokenizer(chat, as_word)


@every_chat
def test_a_tokenizer_that_does_not_know_its_tokens_places_is_refused(chat: str) -> None:
    with pytest.raises(SettingsError, match=f"chat template {chat}: ByT5Tokenizer does not report token offsets"):
        check_tokenizer(chat, ByT5Tokenizer())


def test_an_unknown_template_is_refused() -> None:
    for refused in (lambda: check_tokenizer("nope", TOKENIZER), lambda: encode("nope", [], TOKENIZER)):
        with pytest.raises(SettingsError, match="unknown chat template 'nope'; expected one of plain, gemma"):
            refused()


@every_chat
def test_questions_are_never_learned_and_answers_always(chat: str) -> None:
    """Their content does not matter: only what is between the marks counts."""
    for text in ("«", "[/INST]", "user\n", "assistant\n", "model\n", " ", "\n", "<<SYS>>"):
        actual = encode(chat, conversation(f"q{text}q", f"a{text}a"), TOKENIZER)
        learned = str(TOKENIZER.decode([label for label in actual.labels if label != IGNORE]))
        shown_only = TOKENIZER.decode(
            [token for token, label in zip(actual.ids, actual.labels, strict=True) if label == IGNORE]
        )
        assert f"a{text}a" in learned
        assert "q" not in learned.replace("</s>", "")
        assert f"a{text}a" not in shown_only
