"""Load a saved model for generation."""

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from griffon_shards.support.errors import SettingsError
from griffon_train.model.attention import attention_of
from griffon_train.model.folders import Kind, recognised, result_model
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.parts import load_whole
from griffon_train.model.presets import FAMILY_CHATS
from griffon_train.model.weight_files import read_json
from griffon_train.text.chat_templates import check_tokenizer
from griffon_train.text.tokenizer import load_tokenizer

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_PROCESSOR_NAME = "processor_config.json"


class LoadedModel(NamedTuple):
    """A model on its device, in evaluation mode, with its tokenizer and the chat template that it was trained with."""

    model: GriffonForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    chat: str


def open_saved(path: Path, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Load the model of a folder.

    Args:
        path: a saved model, or the folder of a run that has ended.
        device: `auto`, `cpu`, `cuda`, or a device of torch; auto is CUDA if available.
        dtype: `auto`, `bfloat16` or `float32`; auto is bfloat16 on CUDA and float32 on the CPU.

    Raises:
        SettingsError: there is no such model, device or dtype.
        DataError: the weights are damaged.
    """
    target = device_of(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise SettingsError(f"dtype {dtype!r}: expected auto, {' or '.join(DTYPES)}")
    wanted = DTYPES[dtype if dtype != "auto" else "bfloat16" if target.type == "cuda" else "float32"]
    folder = _model_folder(path)
    model: GriffonForConditionalGeneration = load_whole(GriffonForConditionalGeneration, folder, wanted)
    tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
    chat = _chat(folder, model)
    check_tokenizer(chat, tokenizer)
    model.set_attn_implementation(dict(attention_of(model.config.get_text_config(), "auto", model.language_model)))
    model.train(False)
    model.to(target)  # type: ignore[arg-type]
    return LoadedModel(model, tokenizer, chat)


def device_of(wanted: str) -> torch.device:
    """The device by its name.

    Raises:
        SettingsError: there is no such device.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise SettingsError(f"device {wanted!r}: expected auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device {wanted}: this machine has no CUDA device; use cpu")
    return device


def _model_folder(path: Path) -> Path:
    """The folder itself, or the exported model of a run."""
    kind = recognised("model", path, (Kind.MODEL, Kind.RUN))
    return result_model(path) if kind is Kind.RUN else path


def _chat(folder: Path, model: GriffonForConditionalGeneration) -> str:
    """The chat template that a model was saved with, or that its family was released with."""
    if (folder / _PROCESSOR_NAME).is_file():
        chat = read_json(folder / _PROCESSOR_NAME).get("chat")
        if isinstance(chat, str):
            return chat
    family = model.config.get_text_config().model_type
    if family not in FAMILY_CHATS:
        raise SettingsError(
            f"{folder}: has no {_PROCESSOR_NAME} that names its chat template, and there is no default for language "
            f"models of type {family}; save it again with griffon-train"
        )
    return FAMILY_CHATS[family]
