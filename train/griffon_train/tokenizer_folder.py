"""A tokenizer from its folder, as transformers stores it; with what is wrong with it said in a line."""

from contextlib import suppress
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
    from transformers import AutoTokenizer, LlamaTokenizer

    path = existing_folder("--tokenizer", folder)
    try:
        has_model = (path / MODEL_NAME).is_file()
        if has_model and not (path / "tokenizer.json").is_file():
            return fast_tokenizer(path)
        found: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if has_model and isinstance(found, LlamaTokenizer):  # which is not all that its tokenizer.json says
            return _by_model(path, found)
        return found
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - for a file that it does not know the tokenizers library raises just that
        told = str(error).partition("\n")[0]
        raise SettingsError(f"--tokenizer {folder}: transformers cannot load it ({told})") from None


def _by_model(path: Path, found: Any) -> Any:  # noqa: ANN401
    """The tokenizer of the SentencePiece model, so that Llama's folders give the same tokens with either file.

    Unless the vocabulary has become another one since.
    """
    with suppress(SettingsError):
        made = fast_tokenizer(path)
        if made.get_vocab() == found.get_vocab():
            return made
    return found
