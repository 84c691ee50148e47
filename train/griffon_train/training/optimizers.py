"""AdamW's implementations: PyTorch's, its fused one, and DeepSpeed's for states in CPU memory.

They compute the same function and differ by rounding, and all keep float32 moments and a number of steps, so a
checkpoint of one resumes with another.
"""

import logging
import os
import subprocess
from typing import Any

import torch

from griffon_shards.support.errors import SettingsError
from griffon_train.config.deepspeed import zero_config
from griffon_train.config.groups import OptimizerSettings
from griffon_train.config.settings import Settings
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.training import compiling

_log = logging.getLogger(__name__)

_BUILD_ERRORS = (ImportError, OSError, RuntimeError, subprocess.SubprocessError)
"""What DeepSpeed and torch raise if an extension cannot be compiled or loaded."""


def select_optimizer(settings: Settings, ranks: ProcessGroup) -> str:
    """The implementation to use: the requested one, or for `auto` the fastest one for the place of the states.

    On the CPU `auto` is always `adamw`, so that losses there are the same with and without a compiler.

    Raises:
        SettingsError: `cpu_adam` is requested, and the states are on the GPU or it cannot be compiled.
    """
    wanted = settings.optimizer.optimizer
    cuda = ranks.device.type == "cuda"
    place = _place_of_states(settings) if cuda else "cpu"
    if wanted == "cpu_adam" and place == "none":
        raise SettingsError(
            "--optimizer cpu_adam needs the optimizer's states in CPU memory; also give --offload optimizer"
        )
    if wanted == "auto":
        if not cuda or place == "nvme":
            return "adamw"
        if place == "none":
            return "adamw_fused"
    elif wanted != "cpu_adam":
        return wanted
    ranks.watchdog.now("compiling DeepSpeed's CPU Adam")
    problem = next((each for each in ranks.gathered(_unless_built()) if each is not None), None)
    if problem is None:
        return "cpu_adam"
    if wanted == "cpu_adam":
        raise SettingsError(f"--optimizer cpu_adam: {problem}; give --optimizer adamw_fused instead")
    if ranks.first:
        _log.warning(f"DeepSpeed's CPU Adam: {problem}; PyTorch's fused AdamW is used instead, which may be slower")
    return "adamw_fused"


def _place_of_states(settings: Settings) -> str:
    """Where DeepSpeed keeps the optimizer's states on a GPU: `none` (on the GPU), `cpu` or `nvme`."""
    zero = zero_config(settings.memory, settings.optimizer)["zero_optimization"]
    return str((zero.get("offload_optimizer") or {}).get("device", "none"))


def _unless_built() -> str | None:
    """Compile or load DeepSpeed's CPU Adam on this machine; why it cannot be, or None."""
    from deepspeed.ops.op_builder import CPUAdamBuilder  # only after `distributed_session` selected the accelerator

    try:
        lines = compiling.announcements({"cpu_adam": ("ninja", "c++")})
        if os.environ.get("LOCAL_RANK", "0") == "0":
            for line in lines:
                _log.warning(line)  # at this level also on machines without rank 0
        CPUAdamBuilder().load(verbose=False)
    except SettingsError:
        return "ninja or a C++ compiler is missing"
    except _BUILD_ERRORS as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return f"it could not be compiled ({reason})"
    return None


def make_optimizer(kind: str, groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Make AdamW.

    Args:
        kind: `adamw`, `adamw_fused` or `cpu_adam`.
        groups: parameter groups with their learning rates and weight decays.
        settings: settings of the run.
    """
    same: dict[str, Any] = {"betas": (settings.beta1, settings.beta2), "eps": settings.epsilon}
    if kind == "cpu_adam":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(groups, **same)
        optimizer.register_step_pre_hook(_renew)
        return optimizer
    return torch.optim.AdamW(groups, **same, fused=True if kind == "adamw_fused" else None)


def _renew(optimizer: Any, *_: object) -> None:  # noqa: ANN401 - DeepSpeed is not typed
    """Replace the native object of DeepSpeed's CPU Adam before a step.

    It multiplies up the powers of its betas from step to step, and takes them with `pow` only after a resumption, which
    rounds differently. A new one takes them with `pow`, so a step does not depend on where the run was resumed.
    """
    group = optimizer.param_groups[0]
    numbers = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
    optimizer.ds_opt_adam.create_adam(optimizer.opt_id, *numbers, optimizer.adam_w_mode, False)


def step_count(optimizer: torch.optim.Optimizer, flat: torch.Tensor, steps: int) -> int | torch.Tensor:
    """The number of steps in an optimizer's state, in the form in which that optimizer counts it.

    Args:
        optimizer: one of `make_optimizer`.
        flat: the parameter whose state it is.
        steps: optimizer steps taken.
    """
    if not isinstance(optimizer, torch.optim.AdamW):
        return steps
    return torch.tensor(float(steps), device=flat.device if optimizer.defaults["fused"] else "cpu")
