"""Options of the reference's training script that are no settings of ours, so that its command lines are understood.

Some say in another way what a setting says. The rest are either what happens anyway, or refused with what to give
instead; none is dropped in silence that would change a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from griffon_shards.support.errors import SettingsError

SAID_OTHERWISE: Mapping[str, tuple[str, str, str]] = {
    "bf16": ("dtype", "bfloat16", "float32"),
    "group_by_modality_length": ("grouping", "modality", "none"),
    "group_by_task_length": ("grouping", "task", "none"),
}
"""Booleans: the setting, what it is when they are true, and when they are false and nothing else says it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """An option that is no setting.

    Attributes:
        instead: what to do.
        accepted: values that ask for what happens anyway, in lower case; None for any.
    """

    instead: str
    accepted: tuple[str, ...] | None = ()


_OFF = ("false",)
_ON = ("true",)
_DATA = Foreign("data come as frozen sets; make one with griffon-prep build, and give --shards")
_LORA = Foreign("LoRA and quantized weights are not trained here; leave it out", (*_OFF, "16"))
_EVALUATION = Foreign("validation is --val-shards and --val-steps", ("no",))

FOREIGN: Mapping[str, Foreign] = {
    "gradient_accumulation_steps": Foreign(
        "it follows from --global-batch, --micro-batch and the number of ranks; give --global-batch, which is samples "
        "for each device x accumulation steps x devices"
    ),
    "data_path": _DATA,
    "multi_path": _DATA,
    "image_folder": _DATA,
    "visual_prompt_task": _DATA,
    "formatter": Foreign("how boxes are written is --boxes text or --boxes bin, as the shards were made"),
    "lazy_preprocess": Foreign("samples are always read when they are needed", _ON),
    "image_aspect_ratio": Foreign("pictures are always resized to a square", ("square",)),
    "is_multimodal": Foreign("models always see pictures", _ON),
    "mm_use_im_start_end": Foreign("pictures have no tokens around them", _OFF),
    "mm_use_im_patch_token": Foreign("pictures have no token in the vocabulary", _OFF),
    "mm_vision_select_feature": Foreign("the tower's patches are always taken, without its class token", ("patch",)),
    "freeze_backbone": Foreign("what trains is said by --freeze-llm, --tune-mm-mlp-adapter and their like", _OFF),
    "tf32": Foreign("TF32 is always on", _ON),
    "fp16": Foreign("float16 is not trained in; --dtype bfloat16 is", _OFF),
    "optim": Foreign("the optimizer is always AdamW", ("adamw_torch",)),
    "report_to": Foreign(
        "TensorBoard's files and metrics.jsonl are always written; anything else, as Weights & Biases, is reached "
        "through --log-hook module:function",
        ("tensorboard",),
    ),
    "evaluation_strategy": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "per_device_eval_batch_size": Foreign("validation computes --micro-batch samples at once", None),
    "save_strategy": Foreign("checkpoints are always made by steps, every --save-steps", ("steps",)),
    "resume_from_checkpoint": Foreign("a run always goes on from its last checkpoint", _ON),
    "overwrite_output_dir": Foreign("a run never overwrites another; give a new --output-dir", _OFF),
    "warmup_steps": Foreign("give the share of the steps, --warmup-ratio", ("0",)),
    "remove_unused_columns": Foreign("a sample has no columns", _OFF),
    "group_by_length": Foreign("give --grouping modality or task; like lengths always share a batch", _OFF),
    "cache_dir": Foreign("nothing is downloaded; give folders"),
    "bits": _LORA,
    "lora_enable": _LORA,
    **dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout", "lora_bias", "lora_weight_path"), _LORA),
    **dict.fromkeys(("double_quant", "quant_type"), _LORA),
}
"""By name, with underscores."""


def translate(given: Mapping[str, Any], said: Mapping[str, bool], foreign: Mapping[str, str]) -> dict[str, Any]:
    """What is given, by setting.

    Args:
        given: by setting.
        said: of `SAID_OTHERWISE`.
        foreign: of `FOREIGN`.

    Raises:
        SettingsError: what a foreign option asks for is not done here, or two options contradict each other.
    """
    for name, asked in foreign.items():
        option = FOREIGN[name]
        if option.accepted is not None and asked.lower() not in option.accepted:
            raise SettingsError(f"--{name} {asked}: {option.instead}")
    settings = dict(given)
    sayers = {setting: f"--{setting}" for setting in given}
    for name, value in sorted(said.items(), key=lambda each: not each[1]):
        setting, when_true, when_false = SAID_OTHERWISE[name]
        if not value:
            settings.setdefault(setting, when_false)
        elif settings.setdefault(setting, when_true) != when_true:
            other = sayers[setting]
            raise SettingsError(f"--{name} true and {other} contradict each other on {setting}; give one")
        else:
            sayers[setting] = f"--{name} true"
    return settings
