"""Load a tokenizer from its folder; what is wrong with it is reported in one line."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.given_folder import existing_folder
from griffon_train.text.sentencepiece_model import MODEL_NAME, fast_tokenizer

_LFS = b"version https://git-lfs"
_REMEDIES = {
    "did not match any variant": "the file is damaged, or written by a newer version: pip install -U tokenizers",
    "custom code": "custom code of a tokenizer is not run; use one with a tokenizer.json",
    "instantiate the backend tokenizer": f"the folder has no tokenizer.json or {MODEL_NAME}; download one of them, too",
}
"""Remedies, by a part of the message from transformers."""


def load_tokenizer(folder: Path | str) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase; transformers takes seconds to import
    """The tokenizer of a folder.

    Raises:
        SettingsError: there is no such folder, or transformers cannot load what is in it.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    path = existing_folder("--tokenizer", folder)
    _refuse_pointers(path)
    try:
        has_model = (path / MODEL_NAME).is_file()
        if has_model and not (path / "tokenizer.json").is_file():
            return fast_tokenizer(path)
        # None, the default, asks at the terminal whether to run code out of the folder.
        found: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if has_model and isinstance(found, LlamaTokenizer):  # which is not all that its tokenizer.json says
            return _by_model(path, found)
        return found
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - for a file that it does not know the tokenizers library raises just that
        told = str(error).partition("\n")[0].rstrip(" :")
        remedy = "".join(f"; {remedy}" for part, remedy in _REMEDIES.items() if part in told)
        raise SettingsError(f"--tokenizer {folder}: transformers cannot load it ({told}){remedy}") from None


def _refuse_pointers(folder: Path) -> None:
    """A clone without Git LFS has a few lines of text in place of each large file."""
    for file in sorted([*folder.glob("token*"), *folder.glob("vocab*")]):
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(_LFS)) == _LFS:
                    raise SettingsError(
                        f"--tokenizer {folder}: {file.name} is a Git LFS pointer, not the file; run `git lfs pull` "
                        "in its repository, or download it with `hf download`"
                    )


def _by_model(path: Path, found: Any) -> Any:  # noqa: ANN401
    """The tokenizer of the SentencePiece model, so that Llama's folders give the same tokens with either file.

    Unless the vocabulary has become another one since.
    """
    with suppress(SettingsError):
        made = fast_tokenizer(path)
        if made.get_vocab() == found.get_vocab():
            return made
    return found
