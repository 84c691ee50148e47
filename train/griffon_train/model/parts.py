"""Load models of transformers from their folders, complete; errors say in one line what is wrong with the folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.model.released_layout import is_computed
from griffon_train.model.saving import GENERATION_NAME
from griffon_train.model.weight_files import WeightFiles, read_json, refuse_quantized, refuse_unfit

_WHAT_LOADING_RAISES = (
    *(ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    StrictDataclassError,
)
"""Errors of transformers for a configuration that it cannot make a model of."""


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Prefix errors about a folder or file with the option that names it."""
    try:
        yield
    except (SettingsError, DataError) as error:
        raise type(error)(f"{option} {error}") from None


def load_whole(kind: Any, folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - a class of transformers, a model of it
    """Load a model, and check that its weights and those in the folder are the same set.

    transformers translates some old names of weights. A tied head may be missing from the folder.

    Args:
        kind: a class with `from_pretrained`.
        folder: holds config.json and weights.
        dtype: of the weights.

    Raises:
        SettingsError: there are no weights, or transformers rejects the configuration.
        DataError: the weights are damaged, or do not match the configuration.
    """
    weights = WeightFiles(folder)  # reports damage by name, where transformers raises all kinds of errors
    if not weights:
        raise DataError(f"{folder}: its weights contain no tensors; download them again")
    refuse_quantized(str(folder), {name: weights[name] for name in weights if name.endswith("weight")})
    if (folder / GENERATION_NAME).is_file():
        read_json(folder / GENERATION_NAME)  # transformers silently ignores a damaged file
    with making_model(folder), _quiet():
        model, info = kind.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="eager",  # a configuration may name one that is not installed here
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            local_files_only=True,
        )
    refuse_unfit(
        f"{folder}: the weights are not those of its config.json; get both from the same place",
        missing=info["missing_keys"],
        unexpected=(name for name in info["unexpected_keys"] if not is_computed(name)),
        shapes=info["mismatched_keys"],
    )
    return model


def load_language_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a causal language model, and check that no weight is missing.

    Raises:
        SettingsError: transformers cannot make a causal language model from the configuration.
        DataError: the weights are damaged, or do not match the configuration.
    """
    model: Any = load_whole(AutoModelForCausalLM, folder, dtype)
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if model.config.tie_word_embeddings and head is not None and head.weight is not embeddings.weight:
        raise DataError(
            f"{folder}: the weights of its head and of its embeddings differ, but its config.json ties them; set "
            '"tie_word_embeddings": false there if they should differ'
        )
    result: PreTrainedModel = model
    return result


@contextmanager
def making_model(folder: Path) -> Iterator[None]:
    """Turn errors of transformers about a folder's configuration into one-line errors."""
    try:
        yield
    except _WHAT_LOADING_RAISES as error:
        message = " ".join(str(error).split())[:300]
        raise SettingsError(
            f"{folder}: transformers cannot load it ({type(error).__name__}: {message}); download its config.json again"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report on weights that do not fit; we raise an error for them ourselves."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
