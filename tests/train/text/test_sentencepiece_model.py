"""Folders with a `tokenizer.model` and no tokenizer.json: token for token what SentencePiece itself gives."""

import io
import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.text.tokenizer import load_tokenizer

from .test_vocabularies import TOKENIZERS, random_text

LLAMA_2 = TOKENIZERS / "llama2" / "tokenizer.model"
TEXTS = 10_000
SPELLED = ("<s>", "</s>", "<unk>", "<pad>", "[INST]", "[/INST]", "<<SYS>>", "<0x0A>", "<image>", "<tag>", "▁▁")

VICUNA = {
    "add_bos_token": True,
    "add_eos_token": False,
    **{
        f"{name}_token": {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": False}
        for name, content in {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}.items()
    },
    "legacy": False,
    "model_max_length": 4096,
    "pad_token": None,
    "padding_side": "right",
    "sp_model_kwargs": {},
    "tokenizer_class": "LlamaTokenizer",
}
"""The `tokenizer_config.json` that Vicuna and LLaVA are published with."""

FOLDERS: Mapping[str, Mapping[str, object]] = {
    "alone": {},
    "with the model's configuration": {"config.json": {"model_type": "llama"}},
    "vicuna": {"tokenizer_config.json": VICUNA, "config.json": {"model_type": "llama"}},
    "llava": {"tokenizer_config.json": VICUNA, "config.json": {"model_type": "llava_llama"}},
    "ours": {"tokenizer_config.json": VICUNA, "config.json": {"model_type": "griffon"}},
    "fast by name": {"tokenizer_config.json": {**VICUNA, "tokenizer_class": "LlamaTokenizerFast"}},
    "of no class": {"tokenizer_config.json": {"bos_token": "", "pad_token": "<unk>"}},
    "a token more": {
        "added_tokens.json": {"<pad>": 32000},
        "special_tokens_map.json": {"pad_token": "<pad>"},
        "tokenizer_config.json": VICUNA,
    },
}
"""By what stands beside `tokenizer.model`."""


def texts(seed: str, count: int) -> list[str]:
    """Draw texts of all scripts, with runs of spaces, digits and newlines, and with spelled control tokens."""
    draws = random.Random(seed)
    alphabets = (" a", "  \n\t", "-=", "ab ", "}{) ", "0123456789 .,", "<>/s|unk []INST▁", "aeins ", "两只猫ねこ고양 ")
    made = []
    for i in range(count):
        alphabet = draws.choice(alphabets)
        text = "".join(draws.choice(alphabet) for _ in range(draws.randint(0, 40)))
        made.append(random_text(draws, True) if i % 2 else text + draws.choice(("", *SPELLED)) + " " * (i % 20))
    return made


def as_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def trained(**options: object) -> bytes:
    """A small SentencePiece model."""
    draws, written = random.Random(0), io.BytesIO()
    words = ("the", "cat", "dog", "in", "a", "box", "at", "0.125", "0.250", "两只猫", "person-[0.1,0.2]", "end.\tThe")
    lines = [" ".join(draws.choice(words) for _ in range(9)) for _ in range(300)]
    train: Any = SentencePieceTrainer.train
    train(
        sentence_iterator=iter(lines),
        model_writer=written,
        minloglevel=2,
        **{"model_type": "bpe", "vocab_size": 400, "byte_fallback": True, "normalization_rule_name": "identity"}
        | {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "hard_vocab_limit": False}
        | options,
    )
    return written.getvalue()


@pytest.fixture
def llama_2() -> SentencePieceProcessor:
    if not LLAMA_2.exists():
        pytest.skip(f"needs {LLAMA_2}")
    return SentencePieceProcessor(model_file=str(LLAMA_2))


def folder_of(root: Path, model: bytes, files: Mapping[str, object]) -> Path:
    root.mkdir()
    (root / "tokenizer.model").write_bytes(model)
    for name, content in files.items():
        (root / name).write_text(json.dumps(content), encoding="utf-8")
    return root


def test_llama_2_gives_the_tokens_that_sentencepiece_gives(llama_2: SentencePieceProcessor) -> None:
    tokenizer = load_tokenizer(LLAMA_2.parent)
    for text in texts("llama 2", TEXTS):
        assert as_text(tokenizer, text) == llama_2.encode(text), text
    assert as_text(tokenizer, "safe.  Your") == [9109, 29889, 29871, 3575]


def test_no_split_of_a_piece_is_preferred_otherwise(llama_2: SentencePieceProcessor) -> None:
    """Where a piece can begin in two places of a text, such as `----` in seven hyphens, it is the leftmost."""
    tokenizer = load_tokenizer(LLAMA_2.parent)
    pieces = {llama_2.id_to_piece(i) for i in range(259, len(llama_2))}
    overlapping = {
        piece[:position] + piece + piece[len(piece) - position :]
        for piece in pieces
        for position in range(1, len(piece))
        if piece[position:] in pieces and piece.startswith(piece[position:])
    }
    assert len(overlapping) > 200
    for written in sorted(overlapping):
        for text in (written, f"x{written}", f"{written}x", written * 2):
            assert as_text(tokenizer, text.replace("▁", " ")) == llama_2.encode(text), text


@pytest.mark.parametrize("name", FOLDERS)
def test_other_files_next_to_the_model_do_not_matter(
    name: str, llama_2: SentencePieceProcessor, tmp_path: Path
) -> None:
    """Saved, the tokenizer is loaded unchanged, by our loader and by transformers."""
    folder = folder_of(tmp_path / "given", LLAMA_2.read_bytes(), FOLDERS[name])
    tokenizer = load_tokenizer(folder)
    tokenizer.save_pretrained(tmp_path / "saved")
    if "config.json" in FOLDERS[name]:
        shutil.copyfile(folder / "config.json", tmp_path / "saved" / "config.json")
    again = [load_tokenizer(tmp_path / "saved"), AutoTokenizer.from_pretrained(tmp_path / "saved")]
    for item in (tokenizer, *again):
        assert (item.bos_token, item.eos_token, item.unk_token) == ("<s>", "</s>", "<unk>")
        assert item("a").input_ids == [1, 263]
        assert item("</s><s> b").input_ids == [1, 2, 1, 289]
        assert item.padding_side == ("right" if "padding_side" in str(FOLDERS[name]) else "left")
        assert len(item) == 32000 + (name == "a token more")
        for text in texts(name, 200):
            ids = llama_2.encode(text)
            assert as_text(item, text) == ids
            assert item.decode(ids) == llama_2.decode(ids)
    assert again[0].pad_token == {"a token more": "<pad>", "of no class": "<unk>"}.get(name)


@pytest.mark.parametrize("more", [(), ("<mine>",)])
def test_with_a_tokenizer_json_beside_it(
    more: tuple[str, ...], llama_2: SentencePieceProcessor, tmp_path: Path
) -> None:
    """Llama 2 is published so today; if tokens were added to the tokenizer.json, it counts."""
    as_json = json.loads(load_tokenizer(LLAMA_2.parent).backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in as_json["merges"]]
    published = LlamaTokenizer(vocab=as_json["vocab"], merges=merges)
    published.add_tokens(list(more))
    published.save_pretrained(tmp_path)
    shutil.copyfile(LLAMA_2, tmp_path / "tokenizer.model")
    by_itself = AutoTokenizer.from_pretrained(tmp_path)
    assert as_text(by_itself, " in") != llama_2.encode(" in")  # a space is lost
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) == 32000 + len(more)
    if more:
        assert as_text(tokenizer, "a<mine>") == [263, 32000]
    else:
        for text in texts("both", 1000):
            assert as_text(tokenizer, text) == llama_2.encode(text)


def test_tokens_report_their_offsets(llama_2: SentencePieceProcessor) -> None:
    """Each token's characters are those that it stands for, and no character is left out."""
    tokenizer = load_tokenizer(LLAMA_2.parent)
    for text in texts("places", 1000):
        encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        covered = {position for begin, end in encoded["offset_mapping"] for position in range(begin, end)}
        assert covered == set(range(len(text)))
        for token, (begin, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            piece = llama_2.id_to_piece(token)
            if not llama_2.is_byte(token):
                assert piece.removeprefix("▁") in text[begin:end].replace(" ", "▁")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False},
        {"byte_fallback": False},
        {"add_dummy_prefix": False, "user_defined_symbols": ["\n\n", "<tag>", "<start_of_turn>", "<end_of_turn>"]},
        {"split_digits": True, "pad_id": 3},
    ],
    ids=str,
)
def test_models_of_other_kinds(options: Mapping[str, object], tmp_path: Path) -> None:
    model = trained(**options)
    processor = SentencePieceProcessor(model_proto=model)
    tokenizer = load_tokenizer(folder_of(tmp_path / "made", model, {}))
    turn_marks = {"<start_of_turn>", "<end_of_turn>"}
    for text in texts("trained", 2000):
        if not any(mark in text for mark in turn_marks):  # which SentencePiece takes for words, and the chat does not
            assert as_text(tokenizer, text) == processor.encode(text), text
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    assert special >= {"<s>", "</s>", "<unk>"} | (turn_marks if "user_defined_symbols" in options else set())
    assert "<tag>" not in special


@pytest.mark.parametrize(("wanted", "first"), [(None, "▁the"), (True, "▁the"), (False, "the")])
def test_a_folder_that_sets_no_leading_space(wanted: bool | None, first: str, tmp_path: Path) -> None:
    settings = {"tokenizer_config.json": {"add_prefix_space": wanted}}
    tokenizer = load_tokenizer(folder_of(tmp_path / "made", trained(), settings))
    assert tokenizer.tokenize("the cat") == [first, "▁cat"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (trained(model_type="unigram"), "cannot reproduce SentencePiece's tokens"),
        (trained(normalization_rule_name="nfkc"), "cannot reproduce SentencePiece's tokens"),
        (trained(remove_extra_whitespaces=True), "cannot reproduce SentencePiece's tokens"),
        (b"IQ== 0\nIg== 1\n", "not a SentencePiece model, or damaged"),
        (trained()[:1000], "not a SentencePiece model, or damaged"),
        (b"", "not a SentencePiece model, or damaged"),
    ],
    ids=["unigram", "nfkc", "blanks removed", "tiktoken", "cut short", "empty"],
)
def test_what_cannot_be_followed_is_refused(model: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"tokenizer\.model: .*{message}.*use a folder that has a tokenizer\.json"):
        load_tokenizer(folder_of(tmp_path / "made", model, {}))
