"""Options of the reference's training script that are not settings here, so that its command lines work.

Some are translated to a setting. The others either ask for what happens anyway, or are refused with what to use
instead; no option that would change a run is silently ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from griffon_shards.support.errors import SettingsError

BOOLEANS: Mapping[str, tuple[str, str, str]] = {
    "bf16": ("dtype", "bfloat16", "float32"),
    "group_by_modality_length": ("grouping", "modality", "none"),
    "group_by_task_length": ("grouping", "task", "none"),
}
"""Booleans that are translated: the setting, its value when true, and when false unless another option sets it."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """An option of the reference that is not a setting.

    Attributes:
        instead: what to use instead.
        accepted: lower-case values that ask for what happens anyway; None accepts any value.
    """

    instead: str
    accepted: tuple[str, ...] | None = ()


_OFF = ("false",)
_ON = ("true",)
_DATA = Foreign("training data are shards; make them with griffon-prep build, and give --shards")
_QUANTIZED = Foreign("quantized weights are not supported; leave it out", (*_OFF, "16"))
_EVALUATION = Foreign("for validation use --val-shards and --val-steps", ("no",))

FOREIGN: Mapping[str, Foreign] = {
    "gradient_accumulation_steps": Foreign(
        "it follows from --global-batch, --micro-batch and the number of ranks; give --global-batch = samples per "
        "device x accumulation steps x devices"
    ),
    "data_path": _DATA,
    "multi_path": _DATA,
    "image_folder": _DATA,
    "visual_prompt_task": _DATA,
    "formatter": Foreign(
        "the box format is set by --boxes text or --boxes bin; use the one that the shards were made with"
    ),
    "lazy_preprocess": Foreign("samples are always read on demand", _ON),
    "image_aspect_ratio": Foreign("images are always resized to a square", ("square",)),
    "is_multimodal": Foreign("models are always multimodal", _ON),
    "mm_use_im_start_end": Foreign("images have no start and end tokens", _OFF),
    "mm_use_im_patch_token": Foreign("images have no token in the vocabulary", _OFF),
    "mm_vision_select_feature": Foreign(
        "the tower's patch features are always used, without the class token", ("patch",)
    ),
    "freeze_backbone": Foreign(
        "choose what trains with --freeze-llm, --tune-mm-mlp-adapter and the similar options", _OFF
    ),
    "tf32": Foreign("TF32 is always on", _ON),
    "fp16": Foreign("float16 training is not supported; use --dtype bfloat16", _OFF),
    "optim": Foreign(
        "the optimizer is always AdamW; --optimizer chooses its implementation", ("adamw_torch", "adamw_torch_fused")
    ),
    "report_to": Foreign(
        "TensorBoard files and metrics.jsonl are always written; for other loggers, such as Weights & Biases, use "
        "--log-hook module:function",
        ("tensorboard",),
    ),
    "evaluation_strategy": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "per_device_eval_batch_size": Foreign("validation uses --micro-batch", None),
    "save_strategy": Foreign("checkpoints are always saved every --save-steps steps", ("steps",)),
    "resume_from_checkpoint": Foreign("a run always resumes from its latest checkpoint", _ON),
    "overwrite_output_dir": Foreign("a run never overwrites another; give a new --output-dir", _OFF),
    "remove_unused_columns": Foreign("samples have no columns", _OFF),
    "group_by_length": Foreign("use --grouping modality or task; samples of similar length always share a batch", _OFF),
    "cache_dir": Foreign("nothing is downloaded; give local folders"),
    **dict.fromkeys(("bits", "double_quant", "quant_type"), _QUANTIZED),
    "lora_enable": Foreign("expected true or false; or only give --lora-r, which enables LoRA", (*_ON, *_OFF)),
    "lora_bias": Foreign("biases do not train with LoRA", ("none",)),
    "lora_weight_path": Foreign("to train an adapter further, give the folder of its run as --from", ("",)),
}
"""By name, with underscores."""

LORA: Mapping[str, Any] = {"lora_r": 64, "lora_alpha": 16.0, "lora_dropout": 0.05}
"""The reference's values where `--lora_enable True` is given."""


def translate(given: Mapping[str, Any], booleans: Mapping[str, bool], foreign: Mapping[str, str]) -> dict[str, Any]:
    """Translate the options on a command line to settings.

    Args:
        given: values by setting.
        booleans: values of options in `BOOLEANS`.
        foreign: values of options in `FOREIGN`.

    Raises:
        SettingsError: a foreign option asks for something unsupported, or two options contradict each other.
    """
    for name, value in foreign.items():
        option = FOREIGN[name]
        if option.accepted is not None and value.lower() not in option.accepted:
            raise SettingsError(f"--{name} {value}: {option.instead}")
    settings = dict(given)
    if "lora_enable" in foreign:
        settings = _with_lora(settings, foreign["lora_enable"])
    sources = {setting: f"--{setting}" for setting in given}
    for name, is_on in sorted(booleans.items(), key=lambda item: not item[1]):
        setting, when_true, when_false = BOOLEANS[name]
        if not is_on:
            settings.setdefault(setting, when_false)
        elif settings.setdefault(setting, when_true) != when_true:
            other = sources[setting]
            raise SettingsError(f"--{name} true and {other} contradict each other on {setting}; give one")
        else:
            sources[setting] = f"--{name} true"
    return settings


def _with_lora(settings: dict[str, Any], enabled: str) -> dict[str, Any]:
    if enabled.lower() in _ON:
        return {**LORA, **settings}
    given = [f"--{name}" for name in (*LORA, "lora_targets") if name in settings]
    if given:
        raise SettingsError(f"--lora_enable {enabled} and {', '.join(given)} contradict each other; leave one out")
    return settings
