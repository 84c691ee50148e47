"""Vocabularies of our own: a byte-level tokenizer for tiny models, and the tokens of `bin` boxes."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from griffon_train.model.griffon import GriffonForConditionalGeneration

BIN_TOKENS = tuple(f"<bin_{thousandths}>" for thousandths in range(1001))
"""One token per coordinate, in thousandths."""

_PAD, _BOS, _EOS, _UNK = "<pad>", "<s>", "</s>", "<unk>"
CONTROL_TOKENS = (_PAD, _BOS, _EOS, _UNK, "<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>")
"""Those of every chat template, as the tokenizers made here have them; padding is the first."""


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with a token per byte and the control tokens of all chat templates; it needs no files."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: token_id for token_id, token in enumerate((*CONTROL_TOKENS, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return with_controls(backend)


def with_controls(backend: Tokenizer) -> PreTrainedTokenizerBase:
    """The tokenizer for transformers, with the roles of its control tokens.

    Args:
        backend: whose vocabulary begins with `CONTROL_TOKENS`.
    """
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_UNK,
        additional_special_tokens=list(CONTROL_TOKENS[4:]),
    )
    return tokenizer


def add_bin_tokens(model: GriffonForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> int:
    """Add the tokens of `bin` boxes to a model and its tokenizer. New embeddings are the mean of the existing ones.

    Returns:
        Number of tokens that the tokenizer did not have before.
    """
    vocabulary_size = len(tokenizer)
    added = tokenizer.add_tokens(list(BIN_TOKENS))
    language_model: Any = model.language_model
    if len(tokenizer) > language_model.get_input_embeddings().weight.shape[0]:
        language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for module in {language_model.get_input_embeddings(), language_model.get_output_embeddings()}:
            weight = module.weight
            weight[vocabulary_size : vocabulary_size + added] = (
                weight[:vocabulary_size].float().mean(dim=0).to(weight.dtype)
            )
    model.config.box_style = "bin"
    return int(added)
