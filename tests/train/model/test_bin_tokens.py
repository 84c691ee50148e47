"""The tokenizer of tiny models, and the tokens of `bin` boxes."""

import torch

from griffon_train.model.bin_tokens import add_bin_tokens, byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config


def test_every_text_comes_back_from_its_bytes() -> None:
    tokenizer = byte_tokenizer()
    for text in ("plain", " two  blanks ", "h\u00e9 漢字\n\t\0", "👩‍👩‍👧", "<bin_1> <unknown>"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert len(ids) == len(text.encode())
        assert tokenizer.decode(ids) == text
    assert len(tokenizer) <= preset_config("tiny-gemma2").get_text_config().vocab_size


def test_bin_tokens_begin_as_the_mean_of_the_old_ones() -> None:
    for name in ("tiny-gemma2", "tiny-llama2"):
        torch.manual_seed(0)
        model, tokenizer = GriffonForConditionalGeneration(preset_config(name)), byte_tokenizer()
        weights = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
        old = [weight.detach()[: len(tokenizer)].clone() for weight in weights]
        before = len(tokenizer)
        assert add_bin_tokens(model, tokenizer) == 1001
        assert tokenizer("<bin_7><bin_1000>", add_special_tokens=False).input_ids == [before + 7, before + 1000]
        after = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
        for was, weight in zip(old, after, strict=True):
            assert torch.equal(weight[:before], was)
            assert torch.allclose(weight[before : before + 1001], was.mean(0).expand(1001, -1), atol=1e-7)
        logits = model(torch.tensor([[1, before + 5]]), labels=torch.tensor([[1, before + 5]])).logits
        assert logits.shape[-1] == len(tokenizer)
        assert model.config.box_style == "bin"
        assert add_bin_tokens(model, tokenizer) == 0


def test_tokens_of_boxes_that_a_vocabulary_has_stay_as_they_were_learned() -> None:
    model, tokenizer = GriffonForConditionalGeneration(preset_config("tiny-llama2")), byte_tokenizer()
    add_bin_tokens(model, tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
    learned = model.get_input_embeddings().weight.detach().clone()
    add_bin_tokens(model, tokenizer)
    assert torch.equal(model.get_input_embeddings().weight, learned)
