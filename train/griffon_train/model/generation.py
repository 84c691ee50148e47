"""Generation settings of a saved model: its language model's, stopping at the chat template's end of an answer."""

from copy import deepcopy
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from griffon_train.text.chat_templates import end_tokens, ends_line


def generation_config(before: GenerationConfig, chat: str, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return the generation settings to save.

    Args:
        before: the current settings: its language model's, or those of the previous stage.
        chat: the chat template that the model was trained with.
        tokenizer: the model's.

    Raises:
        SettingsError: the template is unknown, or the tokenizer lacks its control tokens.
    """
    config: Any = deepcopy(before)
    config._from_model_config = False  # otherwise transformers lets config.json override it
    eos = config.eos_token_id
    stops = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    # Only `plain` ends answers with a newline, so a newline here comes from an earlier stage with that template.
    kept = [token for token in stops if not ends_line(token, tokenizer)]
    config.eos_token_id = list(dict.fromkeys([*kept, *end_tokens(chat, tokenizer)]))
    if (
        config.pad_token_id is None or config.pad_token_id < 0
    ):  # Llama writes -1 for "none", which would be used for padding
        config.pad_token_id = config.eos_token_id[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if config.bos_token_id is None:
        config.bos_token_id = tokenizer.bos_token_id
    result: GenerationConfig = config
    return result
