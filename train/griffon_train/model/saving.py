"""Save the files that a model needs besides weights: generation settings, tokenizer and processor."""

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
        folder: holds the weights; files of the same names are replaced.
        config: the model's.
        generation: the current generation settings.
        chat: the chat template that the model was trained with.
        tokenizer: the model's; its chat template is set.

    Raises:
        SettingsError: the template is unknown, or the tokenizer lacks its control tokens.
        OSError: a file cannot be written.
    """
    processor = processor_of(config, chat, tokenizer)
    try:
        processor.save_pretrained(folder)
    except Exception as error:  # tokenizers raises plain Exception
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error
    # `save_pretrained` refuses settings that published folders have, such as a temperature without sampling.
    generation_config(generation, chat, tokenizer).to_json_file(folder / GENERATION_NAME, use_diff=True)
