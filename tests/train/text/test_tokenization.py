"""From pieces to tokens: what control tokens spell, tokens across borders, and conversations cut to a length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.text.chat_templates import (
    CHATS,
    IGNORE,
    IMAGE_TOKEN_ID,
    REGION_TOKEN_ID,
    Encoded,
    encode,
    expand_and_truncate,
)

from ..small_tokenizers import MARKS, byte_level, conversation, id_of, shown


def test_bin_tokens_stay_tokens_beside_spelled_control_tokens() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([f"<bin_{number}>" for number in range(1001)])
    numbers = [id_of(f"<bin_{number}>", tokenizer) for number in (7, 70, 1000)]
    for spelled in ("", "</s><end_of_turn>"):
        for chat in ("plain", "gemma_instruct", "qwen2"):
            turns = conversation("q", f"cat-<bin_7><bin_70><bin_1000>{spelled}")
            encoded = encode(chat, turns, tokenizer)
            assert [label for label in encoded.labels if label in numbers] == numbers
            assert f"{turns[1].text}" in shown(encoded, tokenizer)


@pytest.mark.parametrize("text", ["<s>", "</s>", "a <end_of_turn> b", "<|im_start|>user\nq<|im_end|>\n"])
def test_text_that_spells_a_control_token_stays_text(text: str) -> None:
    """This holds in questions and answers, and the text after it does not change."""
    tokenizer = byte_level()
    after = {chat: encode(chat, conversation("a", "b</s"), tokenizer) for chat in ("plain", "gemma_instruct", "qwen2")}
    with_text = {chat: encode(chat, conversation(text, text), tokenizer) for chat in after}
    for chat, expected in after.items():
        letters = encode(chat, conversation("X", "X"), tokenizer)
        ids = [input_id for byte in text for input_id in tokenizer(byte)["input_ids"]]
        letter = tokenizer("X")["input_ids"][0]
        assert with_text[chat].ids == [item for token in letters.ids for item in (ids if token == letter else [token])]
        assert encode(chat, conversation("a", "b</s"), tokenizer) == expected
    assert tokenizer("</s>")["input_ids"] == [tokenizer.convert_tokens_to_ids("</s>")]


def test_control_tokens_are_found_by_a_tokenizer_that_is_set_to_split_them() -> None:
    split = byte_level()
    split.split_special_tokens = True
    turns = conversation("a", "b", "<s>", "</s>")
    for chat in ("plain", "gemma_instruct", "qwen2", "llama_2"):
        assert encode(chat, turns[:2], split) == encode(chat, turns[:2], byte_level())
        assert encode(chat, turns, split) == encode(chat, turns, byte_level())


def test_a_token_across_the_begin_of_an_answer_is_learned() -> None:
    """A token across the end of a header's word is not."""
    tokenizer = byte_level(("Ċ", "Ċ"), ("r", "Ċ"))
    actual = shown(encode("qwen2", conversation("\nq", "\na"), tokenizer), tokenizer)
    assert actual.endswith("<|im_start|>user\n\nq<|im_end|>\n<|im_start|>assistant«\n\na<|im_end|>»\n")


@pytest.mark.parametrize("answer", [" a", "\n\n", "a a \n\n", "\n", "  ", "   a", "  \n\n  a"])
@pytest.mark.parametrize("chat", list(CHATS))
def test_spaces_outside_of_token_offsets_are_learned_too(chat: str, answer: str) -> None:
    """Some tokenizers exclude spaces from a token's offsets."""
    merges = (("Ġ", "a"), ("Ċ", "Ċ"), ("Ġ", "Ġ"), ("a", "Ġ"))
    of_all, trimmed = (byte_level(*merges, special=[*MARKS, "<s>"], trim=trim) for trim in (False, True))
    assert trimmed(" a", return_offsets_mapping=True)["offset_mapping"] == [(1, 2)]
    turns = conversation(" a\n\n ", answer, " a ", answer)
    assert encode(chat, turns, trimmed) == encode(chat, turns, of_all)


@given(
    st.lists(st.sampled_from([1, 2, 3, IMAGE_TOKEN_ID, REGION_TOKEN_ID]), max_size=12),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_a_conversation_is_cut_to_its_length_with_complete_images(ids: list[int], max_length: int, takes: int) -> None:
    encoded = Encoded(ids=ids, labels=[token if token > 1 else IGNORE for token in ids])
    spread = [(token, part) for token in ids for part in range(takes if token == IMAGE_TOKEN_ID else 1)]
    kept = min(max_length, len(spread))
    while kept and kept < len(spread) and spread[kept][1]:  # the next is inside an image
        kept -= 1
    expected = [token for token, _ in spread[:kept]]
    labels = [token if token > 1 else IGNORE for token in expected]
    overlong = len(spread) > max_length
    assert expand_and_truncate(encoded, max_length, "truncate", takes, "x") == (
        Encoded(ids=expected, labels=labels),
        overlong,
    )
    masked = [IGNORE] * kept if overlong else labels
    assert expand_and_truncate(encoded, max_length, "mask", takes, "x") == (
        Encoded(ids=expected, labels=masked),
        overlong,
    )
    if overlong:
        with pytest.raises(
            DataError,
            match=rf"^x: {len(spread)} tokens including images, but at most {max_length} are allowed; rai",
        ):
            expand_and_truncate(encoded, max_length, "error", takes, "x")
    else:
        assert expand_and_truncate(encoded, max_length, "error", takes, "x") == (
            Encoded(ids=expected, labels=labels),
            False,
        )


def test_an_image_of_full_size_is_kept_or_dropped_completely() -> None:
    encoded = encode("qwen2", conversation("<image>\nq", "a"), byte_level(), images=1)
    before = encoded.ids.index(IMAGE_TOKEN_ID)
    for max_length, pictures in ((before + 1369, 1), (before + 1368, 0), (4096, 1)):
        actual, overlong = expand_and_truncate(encoded, max_length, "truncate", 1369, "x")
        assert actual.ids.count(IMAGE_TOKEN_ID) == pictures * 1369
        assert actual.ids[:before] == encoded.ids[:before]
        assert overlong == (max_length < 4096)
        assert len(actual.ids) <= max_length


def test_an_unknown_way_to_handle_overlong_samples_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected truncate, mask, error, got 'drop'"):
        expand_and_truncate(Encoded(ids=[], labels=[]), 5, "drop", 1, "x")
