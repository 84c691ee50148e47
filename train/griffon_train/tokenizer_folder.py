"""A tokenizer from its folder, as transformers stores it; with what is wrong with it said in a line."""

from pathlib import Path
from typing import Any

from griffon_shards.errors import SettingsError
from griffon_train.given_folder import existing_folder


def load_tokenizer(folder: Path | str) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase; transformers takes seconds to import
    """The tokenizer of a folder.

    Raises:
        SettingsError: there is no such folder, or transformers cannot load what is in it.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    path = existing_folder("--tokenizer", folder)
    names = {each.name for each in path.iterdir()}
    # Alone, a SentencePiece model is Llama's: AutoTokenizer would make a generic tokenizer of it, and other tokens.
    bare = "tokenizer.model" in names and not names & {"tokenizer.json", "tokenizer_config.json", "config.json"}
    kind: Any = LlamaTokenizer if bare else AutoTokenizer
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - for a file that it does not know the tokenizers library raises just that
        told = str(error).partition("\n")[0]
        raise SettingsError(f"--tokenizer {folder}: transformers cannot load it ({told})") from None
