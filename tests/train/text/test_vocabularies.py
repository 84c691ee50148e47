"""Templates with the models' own vocabularies: of any text LLaVA's tokens, and of these the answers' are learned."""

import random
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from transformers import PreTrainedTokenizerBase

from griffon_shards.types import Turn
from griffon_train.text.chat_templates import IGNORE, IMAGE_TOKEN_ID, REGION_TOKEN_ID, Encoded, check_tokenizer, encode
from griffon_train.text.tokenizer import load_tokenizer

from ..small_tokenizers import conversation, id_of
from .test_chat_templates import CHATML, SYSTEM

TOKENIZERS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tokenizers"
CONVERSATIONS = 2000

SPELLED = (
    *("<s>", "</s>", "<unk>", "<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<|im_start|>"),
    *("<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<image_soft_token>", "</s><s>", "<end_of_turn>\n"),
)

TEXTS = (
    *("person-[0.120,0.034,0.560,0.800]&dog-[0.000,0.034,1.000,0.800]", "None", "A cat.", "isn't", "Größe", "1,234.5"),
    *(
        "两只猫",
        "ねこ。",
        "고양이",
        "ｆｕｌｌ",
        "👩‍👩‍👧",
        "🏳️‍🌈👍🏽",
        "𝒳𐍈",
        "e\u0301o\u0308",
        "\u0301",
        "\u212b\u1100\u1161",
    ),
    *(
        "שלום",
        "مرحبا\u200f",
        "हिन्दी",
        "\x00",
        "\x01\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
        "\u200b",
        "\xa0",
        "\u3000",
        "\ufffd",
    ),
    *(" ", "  ", "     ", "\t", "\t\t ", "\n", "\n\n", "\n\n\n\n", " \n ", "\r\n", "\r", "\n\t"),
    *(
        "[INST] ",
        " [/INST]",
        "<<SYS>>",
        "user\n",
        "model\n",
        "assistant\n",
        "<",
        ">",
        "</",
        "|",
        "<|im_",
        "<0x0A>",
        "▁",
    ),
    *("&", "<bin_5>", "[multimodal]", "<tool_call>", "<h1>", "```py\n    x = 1\n```"),
)


@lru_cache
def vocabulary(name: str) -> PreTrainedTokenizerBase:
    """A released tokenizer; `llama2 legacy` sets a space after each control token, as it once did."""
    folder = TOKENIZERS / name.partition(" ")[0]
    if not folder.exists():
        pytest.skip(f"needs the tokenizer in {folder}")
    with TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder, scratch, dirs_exist_ok=True))
        if "legacy" in name:
            (copy / "tokenizer_config.json").write_bytes(b'{"legacy": true, "tokenizer_class": "LlamaTokenizer"}')
        loaded: PreTrainedTokenizerBase = load_tokenizer(copy)
    return loaded


def random_text(draws: random.Random, spelled: bool) -> str:
    """Draw a text of at most eight parts, often of none."""
    pool = TEXTS + SPELLED if spelled else TEXTS
    return draws.choice(("", " ")).join(draws.choice(pool) for _ in range(draws.choice((0, 1, 1, 2, 3, 5, 8))))


def random_turns(draws: random.Random, *, spelled: bool, pictures: int, regions: int) -> list[Turn]:
    """Up to four rounds; places anywhere in questions, and marks of places in answers."""
    rounds = draws.randint(1, 4)
    questions = [[random_text(draws, spelled), random_text(draws, spelled)] for _ in range(rounds)]
    for position in ["<image>"] * pictures + ["<region>"] * regions:
        question = draws.choice(questions)
        question.insert(draws.randint(0, len(question)), position)
    answers = [random_text(draws, spelled) + draws.choice(("", "", "", "<image>", "<region>")) for _ in range(rounds)]
    return conversation(*(text for pair in zip(map("".join, questions), answers, strict=True) for text in pair))


def prompt_of_llama(questions: Sequence[str], answers: Sequence[str]) -> str:
    rounds = [f"[INST] {question} [/INST] {answer} </s>" for question, answer in zip(questions, answers, strict=True)]
    return "<s>".join(rounds).replace("[INST] ", f"[INST] {SYSTEM}", 1)


def prompt_of_gemma(questions: Sequence[str], answers: Sequence[str]) -> str:
    turn = "<start_of_turn>{}\n{}<end_of_turn>\n".format
    return "".join(turn("user", q) + turn("model", a) for q, a in zip(questions, answers, strict=True))


def prompt_of_qwen(questions: Sequence[str], answers: Sequence[str]) -> str:
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    return CHATML + "".join(turn("user", q) + turn("assistant", a) for q, a in zip(questions, answers, strict=True))


def prompt_of_plain(_questions: Sequence[str], answers: Sequence[str]) -> str:
    return "".join(f"{answer}\n" for answer in answers)


PROMPTS: dict[str, Callable[[Sequence[str], Sequence[str]], str]] = {
    "plain": prompt_of_plain,
    "gemma_instruct": prompt_of_gemma,
    "llama_2": prompt_of_llama,
    "qwen2": prompt_of_qwen,
}


def llava_ids(
    chat: str, turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, pictures: int, regions: int
) -> list[int]:
    """LLaVA's rule: the whole prompt, split at the images, each part tokenized as it is, one bos in front."""
    left = {"<image>": pictures, "<region>": regions}

    def place(mark: re.Match[str]) -> str:
        left[mark[0]] -= 1
        return f"\ue000{mark[0]}\ue000" if left[mark[0]] >= 0 else mark[0]

    questions = [re.sub("<image>|<region>", place, turn.text) for turn in turns if turn.role == "human"]
    prompt = PROMPTS[chat](questions, [turn.text for turn in turns if turn.role == "gpt"])
    if chat == "plain":
        prompt = "\ue000<image>\ue000" * pictures + "\ue000<region>\ue000" * regions + prompt
    ids = [] if chat == "qwen2" or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for index, part in enumerate(prompt.split("\ue000")):
        if index % 2:
            ids.append(IMAGE_TOKEN_ID if part == "<image>" else REGION_TOKEN_ID)
        else:
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


def learned_runs(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the texts of the runs of targets."""
    runs: list[list[int]] = [[]]
    for token, label in zip(encoded.ids, encoded.labels, strict=True):
        assert label in (token, IGNORE)
        if label != IGNORE:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    # Behind a token, for Llama's decoder drops a space at the begin.
    mark = tokenizer.eos_token_id
    written = [tokenizer.decode([mark, *run], clean_up_tokenization_spaces=False) for run in runs if run]
    return [str(text).removeprefix(tokenizer.eos_token) for text in written]


LEARNED: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "plain": lambda answers: ["".join(f"{answer}\n" for answer in answers)],
    "gemma_instruct": lambda answers: [f"{answer}<end_of_turn>\n" for answer in answers],
    "llama_2": lambda answers: [f" {answer} </s>" for answer in answers],
    "qwen2": lambda answers: [f"{answer}<|im_end|>" for answer in answers],
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "gemma3": lambda text: text.replace("▁", " "),  # SentencePiece's sign for a space
    "llama2": lambda text: text.replace("▁", " "),
    "qwen3": lambda text: unicodedata.normalize("NFC", text),
}
"""What a vocabulary makes of a text before it looks for tokens; it comes back so."""


def check_learned(chat: str, name: str, answers: Sequence[str], result: Sequence[str]) -> None:
    """Check that the targets are the answers, each with its end, except for two spaces that tokenizers add.

    A newline that an answer begins with may be one token with the header's; SentencePiece sets a space in front of a
    text, which is the caption's after an image.
    """
    family = name.partition(" ")[0]
    expected = [SPELLINGS[family](text) for text in LEARNED[chat](answers)]
    assert len(result) == len(expected)
    for index, (text, wanted) in enumerate(zip(result, expected, strict=True)):
        allowed = [wanted]
        if chat in ("gemma_instruct", "qwen2") and answers[index][:1].isspace():
            allowed.append(f"\n{wanted}")
        if chat == "plain" and family == "llama2":
            allowed = [f" {wanted}"] if wanted[0] != " " else [wanted, f" {wanted}"]
        assert text in allowed


def expected_controls(chat: str, rounds: int, tokenizer: PreTrainedTokenizerBase) -> Counter[int]:
    """How often each control token stands in a conversation of so many rounds."""
    counts = {
        "plain": {},
        "gemma_instruct": {"<start_of_turn>": 2 * rounds, "<end_of_turn>": 2 * rounds},
        "llama_2": {"<s>": rounds - 1, "</s>": rounds},
        "qwen2": {"<|im_start|>": 2 * rounds + 1, "<|im_end|>": 2 * rounds + 1},
    }[chat]
    result = Counter({id_of(mark, tokenizer): count for mark, count in counts.items()})
    result.update([] if chat == "qwen2" or tokenizer.bos_token_id is None else [tokenizer.bos_token_id])
    return +result


@pytest.mark.parametrize(
    ("chat", "name"),
    [
        ("gemma_instruct", "gemma3"),
        ("llama_2", "llama2"),
        ("llama_2", "llama2 legacy"),
        ("qwen2", "qwen3"),
        ("plain", "llama2"),
        ("plain", "qwen3"),
        ("plain", "gemma3"),
    ],
)
def test_random_conversations_with_the_models_own_vocabularies(chat: str, name: str) -> None:
    tokenizer = vocabulary(name)
    check_tokenizer(chat, tokenizer)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    draws = random.Random(f"{chat} {name}")
    for i in range(CONVERSATIONS):
        spelled, pictures, regions = i % 2 == 0, draws.choice((0, 1, 1, 2)), draws.choice((0, 0, 1))
        turns = random_turns(draws, spelled=spelled, pictures=pictures, regions=regions)
        encoded = encode(chat, turns, tokenizer, images=pictures, regions=regions)
        assert (encoded.ids.count(IMAGE_TOKEN_ID), encoded.ids.count(REGION_TOKEN_ID)) == (pictures, regions)
        controls = Counter(token for token in encoded.ids if token in special)
        assert controls == expected_controls(chat, len(turns) // 2, tokenizer)
        check_learned(chat, name, [turn.text for turn in turns[1::2]], learned_runs(encoded, tokenizer))
        if not spelled:
            assert encoded.ids == llava_ids(chat, turns, tokenizer, pictures, regions)


@pytest.mark.parametrize(
    ("chat", "name"),
    [("gemma_instruct", "gemma3"), ("llama_2", "llama2"), ("llama_2", "llama2 legacy"), ("qwen2", "qwen3")],
)
def test_a_prompt_is_what_training_showed_before_the_answer(chat: str, name: str) -> None:
    """Unless the answer begins with a newline, which may be one token with the header's."""
    tokenizer, draws = vocabulary(name), random.Random(0)
    for i in range(300):
        turns = random_turns(draws, spelled=i % 2 == 0, pictures=1, regions=0)
        if chat != "llama_2" and turns[-1].text[:1].isspace():
            continue
        prompt = encode(chat, turns[:-1], tokenizer, images=1, prompt=True)
        whole = encode(chat, turns, tokenizer, images=1)
        assert set(prompt.labels) == {IGNORE}
        assert whole.ids[: len(prompt.ids)] == prompt.ids
        assert whole.labels[len(prompt.ids)] == whole.ids[len(prompt.ids)]


def test_released_vocabularies_by_hand() -> None:
    """The tokens of Llama 2 around the places where its spaces could go wrong."""
    tokenizer = vocabulary("llama2")
    encoded = encode("llama_2", conversation("<image>\nq", "Two.", "两", "两"), tokenizer, images=1)
    after = encoded.ids.index(IMAGE_TOKEN_ID) + 1
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids[after:])
    learned = [label != IGNORE for label in encoded.labels[after:]]
    first = ["▁", "<0x0A>", "q", "▁[", "/", "INST", "]", "▁Two", ".", "▁", "</s>"]
    second = ["<s>", "[", "INST", "]", "▁", "两", "▁[", "/", "INST", "]", "▁", "两", "▁", "</s>"]
    assert tokens == first + second
    assert learned == [False] * 7 + [True] * 4 + [False] * 10 + [True] * 4


@pytest.mark.parametrize("name", ["gemma3", "qwen3"])
def test_what_is_added_to_a_vocabulary_is_found_beside_spelled_control_tokens(name: str) -> None:
    tokenizer = vocabulary(name)
    chat = {"gemma3": "gemma_instruct", "qwen3": "qwen2"}[name]
    own = {"gemma3": "\n\n\n", "qwen3": "<tool_call>"}[name]
    for spelled in ("", "".join(SPELLED)):
        encoded = encode(chat, conversation("q", f"x{own}y{spelled}"), tokenizer)
        assert encoded.labels.count(id_of(own, tokenizer)) == 1
