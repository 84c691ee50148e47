"""Load a tokenizer from its folder; errors say in one line what is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.given_folder import existing_folder, is_lfs_pointer
from griffon_train.text.sentencepiece_model import MODEL_NAME, fast_tokenizer

_REMEDIES = {
    "did not match any variant": "the file is damaged, or written by a newer version: pip install -U tokenizers",
    "custom code": "custom code of a tokenizer is not run; use one with a tokenizer.json",
    "instantiate the backend tokenizer": f"the folder has no tokenizer.json or {MODEL_NAME}; download one of them, too",
}
"""Remedies, by a part of the message from transformers."""


def load_tokenizer(folder: Path | str) -> Any:  # noqa: ANN401 - a PreTrainedTokenizerBase; transformers takes seconds to import
    """Load the tokenizer of a folder.

    Raises:
        SettingsError: the folder does not exist, or transformers cannot load its tokenizer.
    """
    from transformers import AutoTokenizer, LlamaTokenizer

    path = existing_folder("--tokenizer", folder)
    _refuse_pointers(path)
    try:
        has_model = (path / MODEL_NAME).is_file()
        if has_model and not (path / "tokenizer.json").is_file():
            return fast_tokenizer(path)
        # With None, the default, transformers asks at the terminal whether to run code from the folder.
        with quiet_transformers():  # a model's folder may be of a type that transformers does not know
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if has_model and isinstance(tokenizer, LlamaTokenizer):  # it ignores parts of its tokenizer.json
            return _by_model(path, tokenizer)
        return tokenizer
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises plain Exception for unknown files
        message = str(error).partition("\n")[0].rstrip(" :")
        remedy = "".join(f"; {remedy}" for part, remedy in _REMEDIES.items() if part in message)
        raise SettingsError(f"--tokenizer {folder}: transformers cannot load it ({message}){remedy}") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' warnings, where we check ourselves what they are about."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _refuse_pointers(folder: Path) -> None:
    for file in sorted([*folder.glob("token*"), *folder.glob("vocab*")]):
        if is_lfs_pointer(file):
            raise SettingsError(
                f"--tokenizer {folder}: {file.name} is a Git LFS pointer, not the file; run `git lfs pull` in its "
                "repository, or download it with `hf download`"
            )


def _by_model(path: Path, loaded: Any) -> Any:  # noqa: ANN401
    """Return the SentencePiece model's tokenizer, so that Llama folders give the same tokens with either file.

    If the vocabulary has changed since, `loaded` is returned.
    """
    with suppress(SettingsError):
        tokenizer = fast_tokenizer(path)
        if tokenizer.get_vocab() == loaded.get_vocab():
            return tokenizer
    return loaded
