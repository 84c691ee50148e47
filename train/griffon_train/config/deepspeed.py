"""The DeepSpeed configuration: a JSON file for DeepSpeed's own options, and the settings of the run.

`overlap_comm` is always off in our files: in several versions, overlapped reduction read buckets before they were full
(DeepSpeed issues 5545, 7188 and 8061), which silently changes sums.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffon_shards.support.errors import SettingsError
from griffon_train.config.groups import MemorySettings, OptimizerSettings

CONFIGS = Path(__file__).parent / "deepspeed"
"""Holds a JSON file for each ZeRO stage and offload choice."""

_AUTO = "auto"  # transformers fills these values in, and so do we
_OURS = {
    "train_batch_size": "--global-batch",
    "train_micro_batch_size_per_gpu": "--micro-batch",
    "gradient_accumulation_steps": "--global-batch, --micro-batch and the number of ranks",
    "gradient_clipping": "--clip",
    "optimizer": "--lr, --weight-decay, --beta1, --beta2 and --epsilon",
    "scheduler": "--schedule and --warmup-ratio or --warmup-steps",
    "bf16": "--dtype",
    "bfloat16": "--dtype",
}
_ADAM_W = ("Adam", "AdamW")  # DeepSpeed's Adam is AdamW unless adam_w_mode is false
_UNSUPPORTED = {
    "fp16": "float16 training is not supported; use --dtype bfloat16",
    "amp": "amp is not supported; use --dtype bfloat16",
}


def deepspeed_config(
    memory: MemorySettings, optimizer: OptimizerSettings, *, micro_batch: int, accumulation: int, dtype: str
) -> dict[str, Any]:
    """The config for `deepspeed.initialize`, which gets the optimizer and the schedule separately.

    Args:
        memory: settings of the run.
        optimizer: settings of the run.
        micro_batch: samples per forward pass on each rank.
        accumulation: micro-steps per optimizer step.
        dtype: `bfloat16` or `float32`; `auto` must be resolved before.

    Raises:
        SettingsError: the custom file cannot be read, or contradicts the settings.
    """
    assert dtype in ("bfloat16", "float32"), dtype
    return zero_config(memory, optimizer) | {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": optimizer.clip,
        "bf16": {"enabled": dtype == "bfloat16"},
    }


def zero_config(memory: MemorySettings, optimizer: OptimizerSettings) -> dict[str, Any]:
    """DeepSpeed's own options: the built-in file for `zero` and `offload`, or the custom file.

    Where the custom file says `auto`, the built-in value is used.

    Raises:
        SettingsError: the custom file cannot be read, or contradicts the settings.
    """
    offload = "" if memory.offload == "none" else f"_offload_{memory.offload}"
    base: dict[str, Any] = json.loads((CONFIGS / f"zero{memory.zero}{offload}.json").read_text(encoding="utf-8"))
    if memory.deepspeed is None:
        return base
    own = _read(memory.deepspeed)
    _refuse_contradictions(own, memory, optimizer)
    zero = own["zero_optimization"]
    filled = {
        name: base["zero_optimization"].get(name, _AUTO) if value == _AUTO else value for name, value in zero.items()
    }
    rest = {name: value for name, value in own.items() if name not in {*_OURS, *_UNSUPPORTED} and value != _AUTO}
    return base | rest | {"zero_optimization": {name: value for name, value in filled.items() if value != _AUTO}}


def scheduler_passed_over(memory: MemorySettings, optimizer: OptimizerSettings) -> str | None:
    """A note that the scheduler in the custom file is ignored; None if the file has none."""
    scheduler = None if memory.deepspeed is None else _read(memory.deepspeed).get("scheduler")
    if not isinstance(scheduler, dict):
        return None
    warmup = (
        f"--warmup-steps {optimizer.warmup_steps}"
        if optimizer.warmup_ratio is None
        else f"--warmup-ratio {optimizer.warmup_ratio}"
    )
    return (
        f"--deepspeed {memory.deepspeed}: scheduler {scheduler.get('type')} is ignored, as it sets no values; "
        f"the learning rate follows --schedule {optimizer.schedule} and {warmup}"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        own = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"--deepspeed {path}: no such file; leave it out to use the built-in file for --zero and --offload"
        ) from error
    except (ValueError, OSError) as error:
        raise SettingsError(f"--deepspeed {path}: expected a JSON file, got {error}") from error
    if not isinstance(own, dict) or not isinstance(own.get("zero_optimization"), dict):
        raise SettingsError(f"--deepspeed {path}: expected an object with a section zero_optimization")
    return own


def _refuse_contradictions(own: Mapping[str, Any], memory: MemorySettings, optimizer: OptimizerSettings) -> None:
    where = f"--deepspeed {memory.deepspeed}"
    for name, instead in _OURS.items():
        if name in own and not (_left_open(own[name]) or _agrees(name, own[name], memory, optimizer)):
            raise SettingsError(f"{where}: {name} follows from {instead}; remove it from the file, or set it to auto")
    for name, instead in _UNSUPPORTED.items():
        if name in own and not _left_open(own[name], off=True):
            raise SettingsError(f"{where}: {name} is on, but {instead}, and remove {name} from the file")
    stage = own["zero_optimization"].get("stage", 0)
    if stage != memory.zero:
        raise SettingsError(f"{where}: its ZeRO stage is {stage}, but --zero is {memory.zero}; make them equal")
    if memory.offload != "none":
        raise SettingsError(
            f"{where} and --offload {memory.offload} contradict each other: the file defines offloading; give one"
        )


def _left_open(value: object, *, off: bool = False) -> bool:
    """Return whether a value, or the `enabled` of a section, is `auto`; with `off`, false counts too."""
    enabled = value.get("enabled") if isinstance(value, dict) else value
    return enabled == _AUTO or (off and enabled is False)


def _agrees(name: str, value: object, memory: MemorySettings, optimizer: OptimizerSettings) -> bool:
    """Return whether every value in a section is `auto` or equal to the settings."""
    if not isinstance(value, dict):
        return False
    if name in ("bf16", "bfloat16"):
        return memory.dtype != "auto" and value.get("enabled") is (memory.dtype == "bfloat16")
    params = value.get("params")
    if not isinstance(params, dict) or not params:
        return False
    if name == "scheduler":  # any type without values of its own is left to --schedule
        return all(param == _AUTO for param in params.values())
    ours = {
        "lr": optimizer.lr,
        "betas": [optimizer.beta1, optimizer.beta2],
        "eps": optimizer.epsilon,
        "weight_decay": optimizer.weight_decay,
        "torch_adam": True,
        "adam_w_mode": True,
    }
    same = all(param == _AUTO or (key in ours and param == ours[key]) for key, param in params.items())
    return name == "optimizer" and value.get("type") in _ADAM_W and same
