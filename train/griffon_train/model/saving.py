"""Save what a model folder needs besides weights to generate as it was trained."""

from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from griffon_train.model.config import GriffonConfig
from griffon_train.model.generation import generation_config
from griffon_train.model.processor import processor_of

GENERATION_NAME = "generation_config.json"


def save_beside(
    folder: Path, config: GriffonConfig, generation: GenerationConfig, chat: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Write the generation settings, the tokenizer with its chat template, and the processor.

    Args:
        folder: that holds the weights; what is there already under these names is replaced.
        config: the model's.
        generation: the settings that it had before.
        chat: the template that it was trained with.
        tokenizer: its own; gets the chat template.

    Raises:
        SettingsError: there is no such template, or the tokenizer lacks its control tokens.
    """
    processor_of(config, chat, tokenizer).save_pretrained(folder)
    # Not by `save_pretrained`, which refuses settings that published folders have, such as a temperature alone.
    generation_config(generation, chat, tokenizer).to_json_file(folder / GENERATION_NAME, use_diff=True)
