"""What DeepSpeed is told: a JSON file for what is its own affair, the settings of the run for all else.

`overlap_comm` is off throughout: overlapped reduction has read buckets before they were full in several versions
(DeepSpeed issues 5545, 7188 and 8061), which changes sums without a word.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.config.settings import Settings

CONFIGS = Path(__file__).parent / "deepspeed"
"""A JSON file for each ZeRO stage and what is offloaded."""

_AUTO = "auto"  # what transformers fills in; we do, too
_OURS = {
    "train_batch_size": "--global-batch",
    "train_micro_batch_size_per_gpu": "--micro-batch",
    "gradient_accumulation_steps": "--global-batch, --micro-batch and the number of ranks",
    "gradient_clipping": "--clip",
    "optimizer": "--lr, --weight-decay, --beta1, --beta2 and --epsilon",
    "scheduler": "--schedule and --warmup-ratio",
    "bf16": "--dtype",
    "bfloat16": "--dtype",
}
_ADAM_W = ("Adam", "AdamW")  # DeepSpeed's names for it: Adam is AdamW unless adam_w_mode is false
_UNKNOWN_HERE = {"fp16": "float16 is not trained in; --dtype bfloat16 is", "amp": "--dtype bfloat16 stands for it"}


def deepspeed_config(settings: Settings, *, micro_batch: int, accumulation: int, dtype: str) -> dict[str, Any]:
    """What `deepspeed.initialize` takes as its config; the optimizer and the schedule are given to it beside that.

    Args:
        settings: of the run.
        micro_batch: samples that a rank computes at once.
        accumulation: micro-steps of an optimizer step.
        dtype: `bfloat16` or `float32`, no longer `auto`.

    Raises:
        SettingsError: the user's own file cannot be read, or contradicts the settings.
    """
    assert dtype in ("bfloat16", "float32"), dtype
    return zero_config(settings) | {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": settings.clip,
        "bf16": {"enabled": dtype == "bfloat16"},
    }


def zero_config(settings: Settings) -> dict[str, Any]:
    """What does not follow from the settings: ours for their `zero` and `offload`, or the user's own file.

    Where that says `auto`, ours holds.

    Raises:
        SettingsError: the user's own file cannot be read, or contradicts the settings.
    """
    offload = "" if settings.offload == "none" else f"_offload_{settings.offload}"
    base: dict[str, Any] = json.loads((CONFIGS / f"zero{settings.zero}{offload}.json").read_text(encoding="utf-8"))
    if settings.deepspeed is None:
        return base
    own = _read(settings.deepspeed)
    _refuse_contradictions(own, settings)
    zero = own["zero_optimization"]
    filled = {
        name: base["zero_optimization"].get(name, _AUTO) if value == _AUTO else value for name, value in zero.items()
    }
    rest = {name: value for name, value in own.items() if name not in {*_OURS, *_UNKNOWN_HERE} and value != _AUTO}
    return base | rest | {"zero_optimization": {name: value for name, value in filled.items() if value != _AUTO}}


def scheduler_passed_over(settings: Settings) -> str | None:
    """A line that says so, where the user's own file names a scheduler: what holds is the schedule of the settings."""
    scheduler = None if settings.deepspeed is None else _read(settings.deepspeed).get("scheduler")
    if not isinstance(scheduler, dict):
        return None
    return (
        f"--deepspeed {settings.deepspeed}: its scheduler {scheduler.get('type')} gives no numbers; the learning rate "
        f"follows --schedule {settings.schedule} and --warmup-ratio {settings.warmup_ratio}"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        own = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"--deepspeed {path}: no such file; leave it out, and --zero and --offload choose"
        ) from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"--deepspeed {path}: expected a JSON file, got {error}") from error
    if not isinstance(own, dict) or not isinstance(own.get("zero_optimization"), dict):
        raise SettingsError(f"--deepspeed {path}: expected an object with a section zero_optimization")
    return own


def _refuse_contradictions(own: Mapping[str, Any], settings: Settings) -> None:
    where = f"--deepspeed {settings.deepspeed}"
    for name, instead in _OURS.items():
        if name in own and not (_left_open(own[name]) or _agrees(name, own[name], settings)):
            raise SettingsError(f"{where}: {name} follows from {instead}; take it out of the file, or set it to auto")
    for name, instead in _UNKNOWN_HERE.items():
        if name in own and not _left_open(own[name], off=True):
            raise SettingsError(f"{where}: {name} is on, and {instead}; take it out of the file")
    stage = own["zero_optimization"].get("stage", 0)
    if stage != settings.zero:
        raise SettingsError(f"{where}: its ZeRO stage is {stage}, and --zero is {settings.zero}; give both the same")
    if settings.offload != "none":
        raise SettingsError(f"{where} and --offload {settings.offload}: the file says what is offloaded; give one")


def _left_open(value: object, *, off: bool = False) -> bool:
    """Whether a value, or what a section has to say of being enabled, is left to us."""
    said = value.get("enabled") if isinstance(value, dict) else value
    return said == _AUTO or (off and said is False)


def _agrees(name: str, value: object, settings: Settings) -> bool:
    """Whether a section says nothing but what the settings say, or leaves it to them."""
    if not isinstance(value, dict):
        return False
    if name in ("bf16", "bfloat16"):
        return settings.dtype != "auto" and value.get("enabled") is (settings.dtype == "bfloat16")
    params = value.get("params")
    if not isinstance(params, dict) or not params:
        return False
    if name == "scheduler":  # of whatever type: without numbers of its own, it is left to --schedule
        return all(each == _AUTO for each in params.values())
    ours = {
        "lr": settings.lr,
        "betas": [settings.beta1, settings.beta2],
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
        "torch_adam": True,
        "adam_w_mode": True,
    }
    same = all(each == _AUTO or (key in ours and each == ours[key]) for key, each in params.items())
    return name == "optimizer" and value.get("type") in _ADAM_W and same
