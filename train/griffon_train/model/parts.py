"""Load models of transformers from their folders, complete; errors say in one line what is wrong with the folder."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.model.released_layout import is_computed
from griffon_train.model.saving import GENERATION_NAME
from griffon_train.model.weight_files import (
    WeightFiles,
    note_mapped,
    read_json,
    refuse_quantized,
    refuse_unfit,
    stored_dtype,
)
from griffon_train.text.tokenizer import quiet_transformers

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


def load_whole(
    kind: Any,  # noqa: ANN401 - a class of transformers
    folder: Path,
    dtype: torch.dtype,
    *,
    as_stored: bool = False,
) -> Any:  # noqa: ANN401 - a model of the class
    """Load a model, and check that its weights and those in the folder are the same set.

    transformers translates some old names of weights. A tied head may be missing from the folder.

    Args:
        kind: a class with `from_pretrained`.
        folder: holds config.json and weights.
        dtype: of the weights. Those that are stored in it stay mapped from their files.
        as_stored: leave the weights in the type that they are stored in, so that all stay mapped; then `dtype` is only
            the type that the configuration states.

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
    held = stored_dtype(weights, dtype) if as_stored else dtype
    with making_model(folder), quiet_transformers():
        model, info = kind.from_pretrained(
            folder,
            dtype=held,
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
    note_mapped(model.parameters())
    state_dtype(model.config, dtype)
    if held != dtype:
        _remake_buffers(model, dtype)
    return model


def state_dtype(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """State the type of the weights in a configuration and in those of its parts, as `from_pretrained` does."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if part is not None:
            part.dtype = dtype


def _remake_buffers(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give a model the buffers that it has in another type: Gemma's scale of embeddings is rounded to that type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        other = undrawn(type(model), copy.deepcopy(model.config))
    finally:
        torch.set_default_dtype(before)
    for name, buffer in other.named_buffers():
        if buffer.dtype != model.get_buffer(name).dtype:
            owner, _, own_name = name.rpartition(".")
            setattr(model.get_submodule(owner), own_name, buffer)


def undrawn(kind: Any, config: PreTrainedConfig) -> Any:  # noqa: ANN401 - a class of transformers, a model of it
    """Make a model whose buffers are computed but whose weights are not drawn: their memory is untouched."""
    with no_init_weights():
        model = kind(config)
    model.tie_weights()
    return model


def load_language_model(folder: Path, dtype: torch.dtype, *, as_stored: bool = False) -> PreTrainedModel:
    """Load a causal language model, and check that no weight is missing. Arguments as for `load_whole`.

    Raises:
        SettingsError: transformers cannot make a causal language model from the configuration.
        DataError: the weights are damaged, or do not match the configuration.
    """
    model: Any = load_whole(AutoModelForCausalLM, folder, dtype, as_stored=as_stored)
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
