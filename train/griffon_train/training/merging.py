"""Merge an adapter into the model that it was trained on, for use without PEFT."""

import logging
from pathlib import Path

from safetensors import SafetensorError

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.files import refuse_taken, whole_folder
from griffon_train.config.groups import ModelSettings
from griffon_train.config.settings import Settings
from griffon_train.evaluation.saved_model import DTYPES
from griffon_train.model.folders import Kind, recognised
from griffon_train.model.presets import PRESETS
from griffon_train.model.saving import save_beside
from griffon_train.model.weight_files import SHARD_SIZE
from griffon_train.training.adapter_files import adapter_folder, read_adapter
from griffon_train.training.model_loading import default_chat, load_model

_log = logging.getLogger(__name__)


def merge_adapter(
    src: Path,
    dst: Path,
    *,
    model: str | None = None,
    vision_tower: Path | None = None,
    dtype: str | None = None,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Write the model that an adapter and its base model make.

    Args:
        src: the adapter, or the folder of the run that trained it.
        dst: the new folder; it must not exist, or be empty.
        model: folder of the base model, if it is no longer where it was.
        vision_tower: folder of the base model's tower, if `model` is a language model.
        dtype: `bfloat16` or `float32`; by default the run's.
        shard_size: maximum size of a file, such as `5GB`.

    Raises:
        SettingsError: there is no adapter, its base model is another one or missing, or `dst` is not empty.
        DataError: the adapter or its base model is damaged, or `dst` cannot be written.
    """
    refuse_taken(dst)
    recognised("SRC", src, (Kind.RUN, Kind.ADAPTER))
    folder = adapter_folder(src)
    if folder is None:
        raise SettingsError(f"SRC {src}: the run has no adapter; give a run with --lora-r that has ended")
    if model in PRESETS:
        raise SettingsError(f"--model {model}: a preset; leave it out, or give the folder of the adapter's base model")
    adapter = read_adapter(folder)
    given = ModelSettings(model=model, vision_tower=vision_tower)
    settings = Settings(stage=adapter.settings.stage, shards=(), output_dir=dst, from_run=folder, model=given)
    merged, tokenizer = load_model(settings, adapter.dtype if dtype is None else DTYPES[dtype])
    chat = adapter.settings.model.chat or default_chat(merged)
    try:
        with whole_folder(dst) as written:
            merged.save_pretrained(written, max_shard_size=shard_size)
            save_beside(written, merged.config, merged.generation_config, chat, tokenizer)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{dst} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    layers = adapter.config["target_modules"]
    _log.info(f"{folder}: merged into {len(layers):,} layers")
