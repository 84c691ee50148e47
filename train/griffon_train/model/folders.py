"""Identify the contents of a folder that is given as a model from its files, before any weights are read."""

from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from griffon_shards.support.errors import SettingsError
from griffon_train.config.run_folder import (
    ADAPTER_BASE_NAME,
    ADAPTER_NAME,
    CHECKPOINT_INDEX_NAME,
    MODEL_NAME,
    PROJECTOR_NAME,
    SETTINGS_NAME,
)
from griffon_train.given_folder import existing_folder
from griffon_train.model.config import GriffonConfig
from griffon_train.model.weight_files import CONFIG_NAME, read_json

ADAPTER_CONFIG_NAME = "adapter_config.json"
_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")


class Kind(Enum):
    """What a folder that is given as a model may be, in the words of messages."""

    MODEL = "a saved model"
    RUN = "the output folder of a run"
    CHECKPOINT = "a checkpoint of a run"
    ADAPTER = "an adapter of a run"


def recognised(option: str, given: Path, accepted: Iterable[Kind], remedies: Mapping[Kind, str] | None = None) -> Kind:
    """Recognise a folder.

    Args:
        option: names the folder in errors.
        given: the folder.
        accepted: what it may be here.
        remedies: what to do about a folder of another kind.

    Raises:
        SettingsError: it is nothing of that; the message says what it is instead.
        DataError: its config.json is damaged.
    """
    folder = existing_folder(option, given)
    kind, kinds = kind_of(folder), list(accepted)
    if kind in kinds:
        return kind
    *others, last = (each.value for each in kinds)
    expected = f"{', '.join(others)} or {last}"
    if kind is not None:
        remedy = (remedies or {}).get(kind)
        raise SettingsError(f"{option} {given}: {kind.value}; expected {expected}{f'; {remedy}' if remedy else ''}")
    raise SettingsError(f"{option} {given}: {_objection(folder).partition('; ')[0]}; expected {expected}")


def kind_of(folder: Path) -> Kind | None:
    """What a folder is, or None if it is none of our kinds.

    Raises:
        DataError: its config.json is damaged.
    """
    if (folder / ADAPTER_BASE_NAME).is_file():
        return Kind.ADAPTER
    if (folder / CHECKPOINT_INDEX_NAME).is_file():
        return Kind.CHECKPOINT
    if (folder / SETTINGS_NAME).is_file():
        return Kind.RUN
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        return None
    if (folder / CONFIG_NAME).is_file():
        return Kind.MODEL if read_json(folder / CONFIG_NAME).get("model_type") == GriffonConfig.model_type else None
    results = (Path(MODEL_NAME, CONFIG_NAME), Path(ADAPTER_NAME, ADAPTER_BASE_NAME), Path(PROJECTOR_NAME))
    return Kind.RUN if any((folder / result).is_file() for result in results) else None


def result_model(run: Path) -> Path:
    """The folder of the model that a run has saved.

    Raises:
        SettingsError: the run has not ended, or saved something else.
    """
    folder = run / MODEL_NAME
    if not folder.is_dir():
        raise SettingsError(
            f"{run}: the run has no {MODEL_NAME}/; let it end, or if it trained an adapter, run griffon-train convert "
            "merge first"
        )
    if not is_saved_griffon(folder):
        raise SettingsError(f"{folder}: not a Griffon model saved by a run; give another run")
    return folder


def is_saved_griffon(folder: Path) -> bool:
    """Whether a folder holds a Griffon model as `save_pretrained` writes it, and not a language model.

    Raises:
        SettingsError: training cannot start from it; the message says what it holds and what to give instead.
        DataError: its config.json is damaged.
    """
    kind = kind_of(folder)
    if kind is Kind.MODEL:
        return True
    if kind is not None:
        raise SettingsError(f"{folder}: {kind.value}; {_INSTEAD_OF_MODEL[kind]}")
    if (folder / ADAPTER_CONFIG_NAME).is_file() or not (folder / CONFIG_NAME).is_file():
        raise SettingsError(f"{folder}: {_objection(folder)}")
    fields = read_json(folder / CONFIG_NAME)
    objection = _no_language_model(fields)
    if objection is not None:
        raise SettingsError(f"{folder}: {objection}")
    return False


_INSTEAD_OF_MODEL = {
    Kind.RUN: f"give it as --from, or the {MODEL_NAME}/ in it",
    Kind.CHECKPOINT: "rerun the command of the run to resume it, or give the run as --from once it has ended",
    Kind.ADAPTER: "give it as --from, or merge it into its model with griffon-train convert merge and give the result",
}
"""What to do with a folder that was given as --model."""


def _objection(folder: Path) -> str:
    """What a folder is that is none of our kinds and, after a semicolon, what to do about it."""
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        base = read_json(folder / ADAPTER_CONFIG_NAME).get("base_model_name_or_path") or "its base model"
        return (
            f"a PEFT adapter of {base}; merge the two with PEFT's merge_and_unload, save the result with "
            "save_pretrained, and give that folder"
        )
    if not (folder / CONFIG_NAME).is_file():
        return _without_config(folder)
    return _no_language_model(read_json(folder / CONFIG_NAME)) or "a language model without a vision tower"


def _no_language_model(fields: Mapping[str, Any]) -> str | None:
    """Describe a model that is not a language model that can be trained, and what to give instead."""
    kind = fields.get("model_type")
    if not isinstance(kind, str) or not kind:
        return f"its {CONFIG_NAME} has no model_type; download it again from the source of the weights"
    classes = fields.get("architectures") or ["unknown"]
    name = str(classes[0]) if isinstance(classes, list) else str(classes)
    if kind.endswith("_Griffon"):
        return "the layout of released weights; run `griffon-train convert griffon` first"
    if kind.lower().startswith("llava") or name.lower().startswith("llava"):
        return _llava(name, fields)
    if kind in _TOWERS:
        return f"a vision model ({kind}); give it as --vision-tower, and a language model as --model"
    if "vision_config" in fields or "audio_config" in fields:
        return (
            f"a multimodal model ({kind}); give a language model without a tower, such as the one that it was made from"
        )
    if isinstance(quantized := fields.get("quantization_config"), dict):
        method = quantized.get("quant_method", "unknown method")
        return f"quantized weights ({method}), which cannot be trained; give the folder that they were made from"
    if kind not in CONFIG_MAPPING:
        return (
            f"model_type {kind!r} in its config.json is unknown to transformers {transformers.__version__}; give "
            "a Gemma-2, Llama or Qwen2 model, or one that AutoModelForCausalLM loads without remote code"
        )
    sequences = kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES or fields.get("is_encoder_decoder")
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not fields.get("is_decoder")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or sequences or encoder:
        return f"a model of type {kind} ({name}), which does not continue text; give a causal language model"
    return None


def _llava(name: str, fields: Mapping[str, Any]) -> str:
    """LLaVA has two layouts: transformers nests the configurations of the parts, the original is flat."""
    text, tower = fields.get("text_config"), fields.get("mm_vision_tower")
    parts = "its language model's folder"
    if isinstance(text, dict) and text.get("_name_or_path"):
        parts += f" ({text['_name_or_path']})"
    parts += " as --model and its tower's"
    if isinstance(tower, str):
        parts += f" ({tower})"
    return (
        f"a LLaVA model ({name}), which cannot be trained as a whole; give {parts} as --vision-tower, and its "
        "projector with --projector and --pretrain-mm-mlp-adapter"
    )


def _without_config(folder: Path) -> str:
    """Describe a folder without a config.json."""
    names = {path.name for path in folder.iterdir()}
    remedy = "give a folder that save_pretrained or `hf download` wrote"
    if not names:
        return f"an empty folder; {remedy}"
    if "snapshots" in names:
        snapshots = sorted(path.parent for path in folder.glob(f"snapshots/*/{CONFIG_NAME}"))
        example = snapshots[0] if snapshots else folder / "snapshots/..."
        return f"a folder of the Hub's cache; give a snapshot in it: {example}"
    if any(name.endswith(".gguf") for name in names):
        return "GGUF files, which cannot be trained; give the safetensors that they were made from"
    if "params.json" in names and any(name.startswith("consolidated.") for name in names):
        return "Meta's own layout of Llama; get the one for transformers, whose name on the Hub ends with -hf"
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_NAME}"))
    hint = f"; did you mean {folder / inside[0]}?" if inside else ""
    return f"no {CONFIG_NAME} in it{hint}; {remedy}"
