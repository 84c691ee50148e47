"""Generation against an oracle that has no batch, no cache and no padding."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.evaluation.generation import Generator, Prompt, decoded
from griffon_train.model.bin_tokens import BIN_TOKENS, byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import FAMILY_CHATS, preset_config
from griffon_train.model.processor import processor_of

from ..model.test_griffon import FAMILIES, made
from ..model_folders import real_tokenizer
from ..small_tokenizers import conversation, id_of

Model = Any
NEW_TOKENS = 12


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def prompts() -> list[Prompt]:
    """Prompts of every kind and of different lengths. Two share an image; some exceed tiny Gemma-2's window of 64."""
    shared = photo(1)
    return [
        Prompt(turns=tuple(conversation("<image>\nLocate the red cup.")), image=shared),
        Prompt(turns=tuple(conversation("Why?")), image=None),
        Prompt(
            turns=tuple(conversation("<image>\nFind all objects like <region>.")),
            image=photo(2),
            region_xyxy_px=(10.0, 5.0, 60.5, 40.0),
        ),
        Prompt(turns=tuple(conversation("<image>\nWhat is in this photo? " * 6)), image=shared),
        Prompt(
            turns=tuple(conversation("Which are alike? <region>\n<image>")),
            image=shared,
            region_xyxy_px=(0.0, 0.0, 20.0, 20.0),
        ),
        Prompt(turns=tuple(conversation("<image>\nHow many?", "Three.", "Of which colour?")), image=photo(3)),
    ]


def chat_of(model: Model) -> str:
    return FAMILY_CHATS[model.config.get_text_config().model_type]


def generator_of(model: Model) -> Generator:
    return Generator(model, byte_tokenizer(), chat=chat_of(model))


@torch.no_grad()
def oracle(model: Model, prompt: Prompt, new_tokens: int) -> tuple[list[int], list[float]]:
    """The tokens that `forward` prefers and their log-probabilities, each time from the complete conversation."""
    processor = processor_of(model.config, chat_of(model), byte_tokenizer())
    roles = {"human": "user", "gpt": "assistant"}
    inputs = processor.apply_chat_template(
        [[{"role": roles[turn.role], "content": turn.text} for turn in prompt.turns]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        images=[[] if prompt.image is None else [prompt.image]],
        regions=[[] if prompt.region_xyxy_px is None else [prompt.region_xyxy_px]],
    )
    ids = inputs.pop("input_ids")
    inputs.pop("attention_mask")
    tokens: list[int] = []
    logprobs = []
    for _ in range(new_tokens):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits[0, -1]
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.log_softmax(-1)[tokens[-1]]))
        ids = torch.cat([ids, torch.tensor([[tokens[-1]]])], dim=1)
    return tokens, logprobs


def text_of(tokens: list[int]) -> str:
    return str(byte_tokenizer().decode(tokens)).strip()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_answers_as_an_argmax_over_the_complete_conversation(name: str) -> None:
    model = made(name)
    asked = prompts()
    for prompt, answer in zip(asked, generator_of(model).answers(asked, NEW_TOKENS), strict=True):
        tokens, logprobs = oracle(model, prompt, NEW_TOKENS)
        assert answer.text == text_of(tokens)
        assert answer.token_logprobs == pytest.approx(logprobs, abs=1e-5)
        assert len(answer.token_ends) == NEW_TOKENS
        assert not answer.complete


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_do_not_depend_on_the_batch_also_when_rows_end_at_different_times(name: str) -> None:
    model = made(name)
    asked = prompts()
    preferred = [oracle(model, prompt, NEW_TOKENS)[0] for prompt in asked]
    # The token that ends most answers at different places becomes an end mark.
    ends = {token: [[*row, token].index(token) for row in preferred] for row in preferred for token in row}
    end, places = max(ends.items(), key=lambda item: (len(set(item[1])), item[0]))
    assert len(set(places)) >= 3
    model.generation_config.eos_token_id = [end]
    generator = generator_of(model)
    together = generator.answers(asked, NEW_TOKENS)
    for tokens, answer in zip(preferred, together, strict=True):
        place = [*tokens, end].index(end)
        assert answer.complete == (place < NEW_TOKENS)
        assert len(answer.token_logprobs) == min(place + 1, NEW_TOKENS)
        assert answer.text == text_of(tokens[:place])
    for size in (1, 2, 5):
        order = list(range(len(asked)))[::-1]
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            for number, answer in zip(numbers, generator.answers([asked[i] for i in numbers], NEW_TOKENS), strict=True):
                expected = together[number]
                assert (answer.text, answer.complete, answer.token_ends) == (
                    expected.text,
                    expected.complete,
                    expected.token_ends,
                )
                assert answer.token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_scores_computed_alone_are_the_same_in_every_digit_and_run_on_one_thread(name: str) -> None:
    model = made(name)
    generator, asked = generator_of(model), prompts()
    answers = generator.answers(asked, NEW_TOKENS)
    together = [generator.scored_alone(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]
    threads: set[int] = set()
    model.language_model.register_forward_pre_hook(lambda *_: threads.add(torch.get_num_threads()))
    for prompt, of_batch, expected in zip(asked, answers, together, strict=True):
        assert expected.token_logprobs == pytest.approx(of_batch.token_logprobs, abs=1e-5)
        (alone,) = generator.answers([prompt], NEW_TOKENS)
        threads.clear()
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            assert generator.scored_alone(prompt, alone) == expected
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert threads == {1}


def test_images_and_regions_are_seen_by_the_prompts_that_they_belong_to() -> None:
    """Another image or region changes the log-probabilities of its own prompt and of no other."""
    model = made("tiny-qwen2")
    generator = generator_of(model)
    before = generator.answers(prompts(), 3)
    changed = prompts()
    changed[5] = Prompt(turns=changed[5].turns, image=photo(9))
    changed[2] = Prompt(turns=changed[2].turns, image=changed[2].image, region_xyxy_px=(0.0, 0.0, 9.0, 9.0))
    after = generator.answers(changed, 3)
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        same = one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)
        assert same == (number not in (2, 5)), number


@pytest.mark.parametrize(("name", "shared"), [("tiny-llama2", True), ("tiny-gemma2", False)])
def test_a_system_prompt_that_prompts_share_is_read_once(name: str, shared: bool) -> None:
    model = made(name)
    asked = prompts()
    read: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda _, given: read.append(given[0].numel()))
    generator_of(model).answers(asked, 1)
    together, read[:] = sum(read), []
    for prompt in asked:
        generator_of(model).answers([prompt], 1)
    assert (together < 0.6 * sum(read)) == shared


def test_an_image_that_prompts_share_is_seen_once() -> None:
    model = made("tiny-llama2")
    seen: list[int] = []
    model.vision_tower.embeddings.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    generator_of(model).answers(prompts(), 2)
    assert seen == [3]


@pytest.mark.parametrize("chat", ["gemma_instruct", "llama_2", "qwen2", "plain"])
def test_the_text_of_an_answer_is_that_of_the_turn_in_training(chat: str) -> None:
    """The end mark and what a template puts around an answer are no part of it."""
    tokenizer = byte_tokenizer()
    model: Model = GriffonForConditionalGeneration(preset_config("tiny-llama2"))
    generator = Generator(model, tokenizer, chat=chat)
    marks = {"gemma_instruct": "<end_of_turn>", "llama_2": "</s>", "qwen2": "<|im_end|>", "plain": "\n"}
    blank = " " if chat == "llama_2" else ""
    text = "the 猫-[0.100,0.200,0.500,0.600]"
    ids = tokenizer(f"{blank}{text}{blank}{marks[chat]}", add_special_tokens=False)["input_ids"]
    answer = generator._answer(ids, [-0.5] * len(ids))
    assert (answer.text, answer.complete) == (text, True)
    assert len(answer.token_ends) == len(ids)
    cut = generator._answer(ids[:-3], [-0.5] * (len(ids) - 3))
    assert not cut.complete
    assert text.startswith(cut.text)


@pytest.mark.parametrize("family", ["llama2", "gemma2", "qwen2", "bytes"])
def test_token_ends_place_every_token_in_the_text(family: str) -> None:
    tokenizer = byte_tokenizer() if family == "bytes" else real_tokenizer(family)
    tokenizer.add_tokens(list(BIN_TOKENS[:20]))
    for text in ("the red cup-[0.120,0.034,0.560,0.800]&两只猫🐈-[1.000,0.000,0.5", "a<bin_12><bin_3><bin_7><bin_0>&b"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        found, ends = decoded(tokens, tokenizer)
        assert found == text
        assert ends[-1] == len(text)
        assert ends == sorted(ends)
        for place in range(1, len(tokens) + 1):
            alone = str(tokenizer.decode(tokens[:place], clean_up_tokenization_spaces=False))
            if not alone.endswith("\ufffd"):  # else the token ends within a character
                assert text[: ends[place - 1]] == alone


def test_bytes_that_are_no_text_are_decoded() -> None:
    tokenizer = byte_tokenizer()
    broken = [id_of("Ļ", tokenizer)] * 9  # the byte 0x9b continues a character that never began
    text, ends = decoded(broken, tokenizer)
    assert set(text) == {"\ufffd"}
    assert len(ends) == 9
    assert ends[-1] == len(text)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(turns=tuple(conversation("Where?")), image=photo(1)), "lack 1 <image>"),
        (Prompt(turns=tuple(conversation("Hi", "Ho")), image=None), "must end with a question"),
        (
            Prompt(turns=tuple(conversation("<region>")), image=None, region_xyxy_px=(0.0, 0.0, 5.0, 5.0)),
            "a region without an image",
        ),
    ],
)
def test_prompts_that_cannot_be_asked(prompt: Prompt, message: str) -> None:
    with pytest.raises(DataError, match=message):
        generator_of(made("tiny-llama2")).answers([prompt], 2)


def test_a_region_for_a_model_without_a_region_tower() -> None:
    model: Model = GriffonForConditionalGeneration(preset_config("tiny-llama2", region=False))
    with pytest.raises(SettingsError, match="no region tower; use one trained for visual referring"):
        generator_of(model).answers([prompts()[2]], 2)


def test_no_prompts_and_no_tokens() -> None:
    generator = generator_of(made("tiny-llama2"))
    assert generator.answers([], 5) == []
    (answer,) = generator.answers(prompts()[:1], 0)
    assert (answer.text, answer.complete, answer.token_ends) == ("", False, ())
    assert generator.scored_alone(prompts()[0], answer) == answer
