"""The DeepSpeed engine: parameter groups, AdamW, and the learning rate of each step."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from griffon_train.config.groups import OptimizerSettings
from griffon_train.model.griffon import GriffonForConditionalGeneration
from griffon_train.training.optimizers import make_optimizer

Engine = Any
"""DeepSpeed is not typed."""


def parameter_groups(model: GriffonForConditionalGeneration, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """Trained parameters grouped by learning rate; biases, norms and other vectors get no weight decay."""
    own_rates = {"projector": settings.projector_lr, "vision_tower": settings.vision_tower_lr}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = own_rates.get(name.partition(".")[0])
            rate = settings.lr if own is None else own
            shape = getattr(parameter, "ds_shape", parameter.shape)  # under ZeRO-3 a rank holds a flat part
            decay = settings.weight_decay if len(shape) > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def make_engine(
    model: GriffonForConditionalGeneration, settings: OptimizerSettings, config: Mapping[str, Any], kind: str
) -> Engine:
    """Create the DeepSpeed engine.

    Args:
        model: with its parts frozen, and its weights as `griffon_train.training.own_parts.bring_in` leaves them.
        settings: settings of the run.
        config: DeepSpeed configuration.
        kind: implementation of AdamW, as `griffon_train.training.optimizers.select_optimizer` returns it.
    """
    import deepspeed  # only after `distributed_session` has selected the accelerator

    optimizer = make_optimizer(kind, parameter_groups(model, settings), settings)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=dict(config))
    return engine


def learning_rate_factor(step: int, steps: int, settings: OptimizerSettings) -> float:
    """Factor on the learning rates of a step: linear warm-up, then a cosine decay to 0 or a constant 1."""
    if settings.warmup_ratio is None:
        assert settings.warmup_steps is not None, "a warm-up has a ratio or steps"
        warmup = settings.warmup_steps
    else:
        warmup = math.ceil(settings.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Rates:
    """The learning rates of an engine's parameter groups."""

    def __init__(self, engine: Engine) -> None:
        self._groups = engine.optimizer.param_groups
        self._full = [group["lr"] for group in self._groups]

    def set(self, factor: float) -> None:
        """Set each group's rate to its full rate times the factor."""
        for group, full in zip(self._groups, self._full, strict=True):
            group["lr"] = full * factor
