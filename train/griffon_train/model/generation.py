"""How a saved model generates: as its language model's folder says, until its chat template's end of an answer."""

from copy import deepcopy
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from griffon_train.text.chat_templates import end_tokens, ends_line


def generation_config(before: GenerationConfig, chat: str, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """The settings to save.

    Args:
        before: those that the model has: its language model's, or those of the stage before.
        chat: the template that it was trained with.
        tokenizer: its own.

    Raises:
        SettingsError: there is no such template, or the tokenizer lacks its control tokens.
    """
    found: Any = deepcopy(before)
    found._from_model_config = False  # else transformers puts what config.json says above it
    named = found.eos_token_id
    stops = [] if named is None else [named] if isinstance(named, int) else list(named)
    # Lines end answers of `plain` alone, so newlines are of an earlier stage with that template.
    kept = [token for token in stops if not ends_line(token, tokenizer)]
    found.eos_token_id = list(dict.fromkeys([*kept, *end_tokens(chat, tokenizer)]))
    if found.pad_token_id is None or found.pad_token_id < 0:  # -1 is Llama's "none", of which a batch would be made
        found.pad_token_id = found.eos_token_id[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if found.bos_token_id is None:
        found.bos_token_id = tokenizer.bos_token_id
    config: GenerationConfig = found
    return config
