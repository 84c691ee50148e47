"""Identify the contents of a model folder from its files, before any weights are read."""

from collections.abc import Mapping
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
from griffon_train.config.run_folder import ADAPTER_BASE_NAME
from griffon_train.model.config import GriffonConfig
from griffon_train.model.weight_files import CONFIG_NAME, read_json

ADAPTER_CONFIG_NAME = "adapter_config.json"
_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")


def is_saved_griffon(folder: Path) -> bool:
    """Whether a folder holds a Griffon model as `save_pretrained` writes it.

    Raises:
        SettingsError: training cannot start from it; the message says what it holds and what to give instead.
        DataError: its config.json is damaged.
    """
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        raise SettingsError(_adapter(folder))
    if not (folder / CONFIG_NAME).is_file():
        raise SettingsError(f"{folder}: {_without_config(folder)}")
    fields = read_json(folder / CONFIG_NAME)
    kind = fields.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise SettingsError(
            f"{folder / CONFIG_NAME}: has no model_type; download it again from the source of the weights"
        )
    if kind == GriffonConfig.model_type:
        return True
    objection = _no_language_model(kind, fields)
    if objection is not None:
        raise SettingsError(f"{folder}: {objection}")
    return False


def _no_language_model(kind: str, fields: Mapping[str, Any]) -> str | None:
    """Describe a model that is not a language model that can be trained, and what to give instead."""
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


def _adapter(folder: Path) -> str:
    if (folder / ADAPTER_BASE_NAME).is_file():
        return (
            f"{folder}: an adapter; give it as --from, or merge it into its model with griffon-train convert merge and "
            "give the result"
        )
    base = read_json(folder / ADAPTER_CONFIG_NAME).get("base_model_name_or_path") or "its base model"
    return (
        f"{folder}: a PEFT adapter of {base}; merge the two with PEFT's merge_and_unload, save the result with "
        "save_pretrained, and give that folder"
    )


def _without_config(folder: Path) -> str:
    """Describe a folder without a config.json."""
    names = {path.name for path in folder.iterdir()}
    remedy = "give a folder that save_pretrained or `hf download` wrote"
    if not names:
        return f"an empty folder; {remedy}"
    if "settings.json" in names and names & {"model", "mm_projector.bin", "checkpoints"}:
        return f"the folder of a run; give it as --from {folder}"
    if "checkpoint.json" in names:
        return "a checkpoint of a run; rerun the same command to resume it, or give the model/ of a finished run"
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
