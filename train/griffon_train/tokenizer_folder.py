"""A tokenizer from its folder, as transformers stores it; with what is wrong with it said in a line."""

from pathlib import Path
from typing import Any

from griffon_shards.errors import SettingsError
from griffon_train.given_folder import existing_folder
from griffon_train.sentencepiece_model import MODEL_NAME, fast_tokenizer


def load_tokenizer(folder: Path | str) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase; transformers takes seconds to import
    """The tokenizer of a folder.

    Raises:
        SettingsError: there is no such folder, or transformers cannot load what is in it.
    """
    from transformers import AutoTokenizer

    path = existing_folder("--tokenizer", folder)
    try:
        if (path / MODEL_NAME).is_file() and not (path / "tokenizer.json").is_file():
            return fast_tokenizer(path)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - for a file that it does not know the tokenizers library raises just that
        told = str(error).partition("\n")[0]
        raise SettingsError(f"--tokenizer {folder}: transformers cannot load it ({told})") from None
