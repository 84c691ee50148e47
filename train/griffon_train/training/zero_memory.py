"""What DeepSpeed's ZeRO-2 and ZeRO-3 hold on a rank, by the rules of DeepSpeed 0.19 (stage_1_and_2.py, stage3.py).

Counts elements of parameters; nothing is allocated. Gradients in flight are shown to the trace of
`griffon_train.model.memory`, which knows what else is alive at that time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import nn

from griffon_train.model.memory import GradientRule

_FLOAT32 = 4
_MOMENTS = 2
_NORM = 8
"""Bytes of an element whose norm is computed: DeepSpeed converts each gradient to float64."""

ADAM_COPIES: Mapping[tuple[str, str], int] = {("adamw", "cpu"): 2, ("adamw", "cuda"): 1}
"""Float32 copies of all states of a group that PyTorch's AdamW makes in a step; its fused one and cpu_adam make none.

https://github.com/pytorch/pytorch/blob/v2.11.0/torch/optim/adam.py: `_single_tensor_adam`, which is used on CPUs, takes
a root and divides it; `_multi_tensor_adam` takes a root.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroRules:
    """The values of a DeepSpeed configuration on which memory depends; sizes in elements.

    Attributes:
        stage: 2 or 3.
        bucket: gradients that are reduced together.
        buckets: number of such buffers; two if communication overlaps with computing.
        prefetch: weights that ZeRO-3 gathers ahead.
        persistent: weights of at most this size are complete on every rank under ZeRO-3.
        live: weights that ZeRO-3 has gathered at a time.
        sub_group: parameters that the optimizer updates at a time under ZeRO-3.
        optimizer_offloaded: whether the optimizer's states are in CPU memory; those on NVMe disks count as such.
        weights_offloaded: whether the weights are too, under ZeRO-3.
    """

    stage: int
    bucket: int
    buckets: int
    prefetch: int
    persistent: int
    live: int
    sub_group: int
    optimizer_offloaded: bool
    weights_offloaded: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ZeroRules":
        """Read a configuration; DeepSpeed's defaults stand for values that it lacks."""
        zero = config["zero_optimization"]

        def offloaded(name: str) -> bool:
            return str((zero.get(name) or {}).get("device", "none")) != "none"

        return cls(
            stage=int(zero["stage"]),
            bucket=int(zero.get("reduce_bucket_size", 5e8)),
            buckets=2 if zero.get("overlap_comm", zero["stage"] == 3) else 1,
            prefetch=int(zero.get("stage3_prefetch_bucket_size", 5e7)),
            persistent=int(zero.get("stage3_param_persistence_threshold", 1e5)),
            live=int(zero.get("stage3_max_live_parameters", 1e9)),
            sub_group=int(zero.get("sub_group_size", 1e9)),
            optimizer_offloaded=offloaded("offload_optimizer"),
            weights_offloaded=offloaded("offload_param"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """The parameters of a model.

    Attributes:
        groups: those that train, in the optimizer's groups and order.
        frozen: those that do not train.
    """

    groups: Sequence[Sequence[nn.Parameter]]
    frozen: Sequence[nn.Parameter]

    @property
    def trained(self) -> list[nn.Parameter]:
        """Those that train, of all groups."""
        return [parameter for group in self.groups for parameter in group]

    @property
    def all(self) -> list[nn.Parameter]:
        """All of them."""
        return [*self.trained, *self.frozen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes on a rank, on its device and in CPU memory.

    Attributes:
        weights: in the model's precision; under ZeRO-3 this rank's part and the small ones.
        optimizer: float32 weights and moments.
        gradients: from micro-batch to micro-batch.
        buffers: communication buffers that are always there.
        gathered: weights that ZeRO-3 has gathered.
        arriving: what gathering takes on top of that at the beginning of the forward pass.
        arriving_later: the same throughout forward and backward pass.
        step: what the optimizer's step takes on top of weights, optimizer and buffers.
        host: in CPU memory, by name; empty without offloading.
    """

    weights: int
    optimizer: int
    gradients: int
    buffers: int
    gathered: int
    arriving: int
    arriving_later: int
    step: int
    host: Mapping[str, int]


def held(
    tensors: Tensors, rules: ZeroRules, *, ranks: int, width: int, micro_steps: int, adam: int, device: str
) -> Held:
    """What a rank holds beside activations; of ranks that differ, the one with the most.

    Args:
        tensors: parameters of the model.
        rules: DeepSpeed's configuration.
        ranks: number of ranks.
        width: bytes of a weight in the model's precision.
        micro_steps: micro-batches per step.
        adam: float32 copies that the optimizer makes in a step (`ADAM_COPIES`).
        device: `cuda` or `cpu`.
    """
    if rules.stage == 3:
        return _held_by_stage_3(tensors, rules, ranks, width, adam, device)
    return _held_by_stage_2(tensors, rules, ranks, width, micro_steps, adam)


def rule_of(tensors: Tensors, rules: ZeroRules, *, ranks: int, width: int, device: str) -> GradientRule:
    """What happens to gradients during the backward pass."""
    return _Buckets(tensors, rules, ranks, width, device)


def _held_by_stage_2(tensors: Tensors, rules: ZeroRules, ranks: int, width: int, micro_steps: int, adam: int) -> Held:
    parts = [_padded(_elements(group), 2 * ranks) // ranks for group in tensors.groups]
    part, owned = sum(parts), _owned(tensors, ranks)
    largest = max((each.numel() for each in tensors.trained), default=0)
    weights = width * (ranks * part + _elements(tensors.frozen))
    optimizer = (1 + _MOMENTS) * _FLOAT32 * part
    if rules.optimizer_offloaded:
        accumulated = width * owned if micro_steps > 1 else 0
        return Held(
            weights=weights,
            optimizer=0,
            gradients=0,
            buffers=width * largest,
            gathered=0,
            arriving=0,
            arriving_later=0,
            step=0,
            host={
                "optimizer's states": optimizer,
                "gradients": _FLOAT32 * part + accumulated,
                "buffers": width * (part + largest),
                "optimizer's step": adam * _FLOAT32 * max(parts),
            },
        )
    gradients = width * owned
    # The gradients of all groups share a buffer, which is freed with its last group.
    narrow = 0 if width == _FLOAT32 else width
    moments_of_step = [gradients + _NORM * min(largest, max(parts))]
    for number, group in enumerate(parts):
        moments_of_step.append(gradients + (narrow + _FLOAT32) * group)
        kept = gradients if number + 1 < len(parts) else 0
        moments_of_step.append(kept + (1 + adam) * _FLOAT32 * group)
    return Held(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients if micro_steps > 1 else 0,
        buffers=0,  # those of gradients are freed after each backward pass
        gathered=0,
        arriving=0,
        arriving_later=0,
        step=max(moments_of_step),
        host={},
    )


def _held_by_stage_3(tensors: Tensors, rules: ZeroRules, ranks: int, width: int, adam: int, device: str) -> Held:
    # Gradients are accumulated in a buffer of their own, whatever the number of micro-steps.
    part = sum(_padded(each.numel(), ranks) // ranks for each in tensors.trained)
    frozen = sum(_padded(each.numel(), ranks) // ranks for each in tensors.frozen)
    small = sum(each.numel() for each in tensors.all if each.numel() <= rules.persistent) if ranks > 1 else 0
    small_parts = sum(_padded(each.numel(), ranks) // ranks for each in tensors.all if each.numel() <= rules.persistent)
    largest = max((_padded(each.numel(), ranks) // ranks for each in tensors.trained), default=0)
    group = min(rules.sub_group + largest, part)
    narrow = 0 if width == _FLOAT32 else width
    weights, optimizer, gradients = width * (part + frozen), (1 + _MOMENTS) * _FLOAT32 * part, width * part
    step = max(_NORM * largest, (narrow + _FLOAT32) * group, (1 + adam) * _FLOAT32 * group)
    host: dict[str, int] = {}
    if rules.optimizer_offloaded:
        host["optimizer's states"] = optimizer
        host["gradients"] = (width + _FLOAT32) * part
        host["optimizer's step"] = adam * _FLOAT32 * group
        optimizer = gradients = step = 0
    if rules.weights_offloaded:
        host["weights"] = weights - width * small_parts
        weights = width * small_parts
    gathered = arriving = arriving_later = 0
    if ranks > 1 or rules.weights_offloaded:
        # All that may be live is requested when the forward pass begins, and none is released before its last use: its
        # later uses are requested with the first. Each bucket arrives in a buffer, and is copied out of it.
        complete = _elements(tensors.all) - small
        live = min(complete, rules.live)
        buckets = 3 if device == "cpu" and ranks > 1 else 1  # gloo gathers two at a time, into buffers of its own
        gathered, arriving = width * live, width * min(buckets * rules.prefetch, complete)
        arriving_later = arriving if complete > live else 0
    return Held(
        weights=weights + width * small,
        optimizer=optimizer,
        gradients=gradients,
        buffers=width * rules.bucket,
        gathered=gathered,
        arriving=arriving,
        arriving_later=arriving_later,
        step=gradients + step,
        host=host,
    )


class _Buckets(GradientRule):
    """Gradients fill a bucket, which is reduced when it is full; larger ones stay where they are until then.

    ZeRO-2 then copies the parameters of which this rank owns a part into a buffer; ZeRO-3 copies this rank's part
    into a buffer that is always there. What is offloaded leaves the device, after its norm was computed there.
    On the CPU gloo copies what it scatters.
    """

    def __init__(self, tensors: Tensors, rules: ZeroRules, ranks: int, width: int, device: str) -> None:
        self._rules, self._ranks, self._stage_3 = rules, ranks, rules.stage == 3
        self._copies = 2 if device == "cpu" and rules.stage == 3 and ranks > 1 else 1
        self._dtype = {2: torch.bfloat16, 4: torch.float32}[width]
        self._owned = 0 if rules.optimizer_offloaded or self._stage_3 else _owned(tensors, ranks)
        self._largest_part = max(_padded(_elements(group), 2 * ranks) // ranks for group in tensors.groups)
        self._waiting: list[torch.Tensor] = []
        self._elements = self._count = self._largest = 0
        self._bucket: torch.Tensor | None = None
        self._partition: torch.Tensor | None = None

    def _new(self, elements: int) -> torch.Tensor:
        return torch.empty(elements, dtype=self._dtype, device="meta")

    def add(self, parameter: nn.Parameter) -> None:
        """Put a gradient into the bucket."""
        if self._bucket is None and not self._stage_3:
            self._bucket = self._new(self._rules.buckets * self._rules.bucket)
        if self._elements and self._elements + parameter.numel() > self._rules.bucket:
            self._reduce()
        self._elements, self._count = self._elements + parameter.numel(), self._count + 1
        self._largest = max(self._largest, parameter.numel())
        if parameter.numel() > self._rules.bucket and parameter.grad is not None:
            copied = self._rules.optimizer_offloaded and not self._stage_3
            self._waiting.append(parameter.grad.clone() if copied else parameter.grad)
        parameter.grad = None

    def end(self) -> None:
        """Reduce what is left, and free what only the backward pass needs."""
        self._reduce()
        self._bucket = self._partition = None

    def _reduce(self) -> None:
        if self._count > 1 and (self._stage_3 or self._ranks > 1):
            self._new(self._copies * self._elements)  # flattened to be sent
        if self._owned and self._partition is None:
            self._partition = self._new(self._owned)
        if self._rules.optimizer_offloaded:
            owned = -(-self._largest // self._ranks) if self._stage_3 else min(self._largest, self._largest_part)
            torch.empty(owned, dtype=torch.float64, device="meta")
        self._waiting.clear()
        self._elements = self._count = self._largest = 0


def _owned(tensors: Tensors, ranks: int) -> int:
    """Elements of the parameters of which a rank owns at least a part under ZeRO-2, of the rank with the most.

    DeepSpeed keeps complete gradients of these.
    """
    of_ranks = [0] * ranks
    for group in tensors.groups:
        part = max(1, _padded(_elements(group), 2 * ranks) // ranks)
        ends = accumulate(each.numel() for each in group)
        for parameter, end in zip(group, ends, strict=True):
            first, last = (end - parameter.numel()) // part, max(0, end - 1) // part
            for rank in range(first, last + 1):
                of_ranks[rank] += parameter.numel()
    return max(of_ranks)


def _elements(parameters: Iterable[nn.Parameter]) -> int:
    return sum(each.numel() for each in parameters)


def _padded(elements: int, multiple: int) -> int:
    return -(-elements // multiple) * multiple
