"""Folders that a run may be given as its model or its towers, and changes to make in them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from griffon_train.config.resolve import resolve
from griffon_train.config.settings import Settings
from griffon_train.model.bin_tokens import byte_tokenizer
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.model.presets import preset_config

from ..model_folders import language_model_folder, tower_folder

TINY: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def settings(**more: object) -> Settings:
    """Settings of a run, with a tiny preset where no model is given."""
    model = {} if "from_run" in more else {"model": "tiny-llama2"}
    return resolve({"stage": "custom", "shards": (Path("set"),), "output_dir": Path("run"), **model, **more}).settings


def griffon_folder(folder: Path, *, region: bool = False) -> Path:
    """A saved Griffon model with its tokenizer, with or without a region tower."""
    GriffonForConditionalGeneration(preset_config("tiny-llama2", region=region)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def complete_folders(root: Path) -> Path:
    """A language model, a tower, a saved Griffon model, and a run that left one."""
    language_model_folder(root / "language", "llama2")
    tower_folder(root / "tower")
    griffon_folder(root / "saved")
    (root / "run").mkdir()
    shutil.copytree(root / "saved", root / "run/model")
    return root


OPTIONS = {
    "--model": ("language", "config.json"),
    "--vision-tower": ("tower", "config.json"),
    "--region-tower": ("tower", "config.json"),
    "--model ": ("saved", "config.json"),
    "--from": ("run", "model/config.json"),
}
"""By option, which of the `complete_folders` it is given, and its configuration; with the blank, a saved model."""


def given_with(option: str, folder: Path, whole: Path) -> Settings:
    """Return settings that give a folder to one option, and complete folders to the others."""
    if option == "--from":
        return settings(from_run=folder)
    if option == "--model ":
        return settings(model=str(folder))
    parts = {"model": whole / "language", "vision_tower": whole / "tower", "region_tower": whole / "tower"}
    parts[option.removeprefix("--").replace("-", "_")] = folder
    return settings(**{**parts, "model": str(parts["model"])})


def edited(**fields: object) -> Callable[[Path], None]:
    """Change a configuration; None takes a field away."""

    def edit(folder: Path) -> None:
        config = folder / "config.json"
        stored = {**orjson.loads(config.read_bytes()), **fields}
        config.write_bytes(orjson.dumps({name: value for name, value in stored.items() if value is not None}))

    return edit


def cut(name: str) -> Callable[[Path], None]:
    def halve(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return halve
