"""Maps DeepSpeed's flat buffers under ZeRO-2 and ZeRO-3 to the slices of parameters that this rank holds.

DeepSpeed flattens the float32 parameters of a group and gives each rank a slice. Described parameter by parameter,
state that was saved on some number of ranks can be restored on any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from griffon_train.training.engine import Engine
from griffon_train.training.optimizers import step_count

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's moments, as torch names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShard:
    """Elements [start, start + count) of a flattened parameter, stored at `offset` in buffer `buffer`."""

    name: str
    start: int
    count: int
    buffer: int
    offset: int


class ShardedState:
    """This rank's float32 weights and AdamW moments of all trained parameters.

    Attributes:
        buffers: DeepSpeed's flat buffers.
        fragments: slices of parameters in the buffers; alignment may leave gaps between them.
    """

    def __init__(self, engine: Engine, rank: int) -> None:
        self._zero = engine.optimizer
        names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
        self._sharded_weights = engine.zero_optimization_stage() == 3
        if self._sharded_weights:
            self.buffers, self.fragments = _of_stage_3(self._zero, names, rank)
        else:
            self.buffers, self.fragments = _of_stage_2(self._zero, names)
        self._parameters = {name: parameter for name, parameter in engine.module.named_parameters()}

    def moments(self, buffer: int) -> Mapping[str, torch.Tensor]:
        """The moments of a buffer by name; created as zeros if the optimizer has not stepped yet."""
        flat = self.buffers[buffer]
        state = self._zero.optimizer.state[flat]
        for name in MOMENTS:
            if name not in state:
                state[name] = torch.zeros_like(flat.data)
        if "step" not in state:  # AdamW assumes that a non-empty state is complete
            state["step"] = step_count(self._zero.optimizer, flat, 0)
        return {name: state[name] for name in MOMENTS}

    def set_steps(self, steps: int) -> None:
        """Set the number of optimizer steps, on which AdamW's bias correction depends."""
        for flat in self.buffers:
            self._zero.optimizer.state[flat]["step"] = step_count(self._zero.optimizer, flat, steps)

    def steps(self) -> int:
        """Number of optimizer steps taken."""
        states = [self._zero.optimizer.state.get(flat, {}) for flat in self.buffers]
        steps = {int(state["step"]) for state in states if "step" in state}
        assert len(steps) <= 1, f"the optimizer's buffers differ in steps: {steps}"
        return steps.pop() if steps else 0

    @torch.no_grad()
    def weights_to_model(self) -> None:
        """Copy the float32 weights from the buffers into the model. Every rank calls this."""
        if not self._sharded_weights:
            self._zero.update_lp_params()
            return
        for flat, low in zip(self.buffers, self._zero.fp16_partitioned_groups_flat, strict=True):
            low.data.copy_(flat.data)
        small = self._zero.persistent_parameters  # too small to shard: every rank holds them in full
        if small:
            small[0].all_gather(small)

    def differing(self) -> list[str]:
        """Names of parameters whose weights in the model differ from the buffers, in the model's precision."""
        different = []
        for each in self.fragments:
            parameter = self._parameters[each.name]
            model = (
                parameter.ds_tensor.view(-1)[: each.count]
                if self._sharded_weights
                else parameter.detach().view(-1)[each.start : each.start + each.count]
            )
            held = self.buffers[each.buffer].data[each.offset : each.offset + each.count]
            if not torch.equal(model.cpu(), held.to(model.dtype).cpu()):
                different.append(each.name)
        return different


def _of_stage_2(zero: Any, names: Mapping[int, str]) -> tuple[Sequence[torch.Tensor], list[ParameterShard]]:  # noqa: ANN401
    fragments = []
    for number, group in enumerate(zero.bit16_groups):
        for parameter in group:
            mapping = parameter._hp_mapping
            if mapping is not None:  # else this rank holds none of it
                fragments.append(
                    ParameterShard(
                        name=names[id(parameter)],
                        start=mapping.lp_fragment_address.start,
                        count=mapping.lp_fragment_address.numel,
                        buffer=number,
                        offset=mapping.hp_fragment_address.start,
                    )
                )
    return list(zero.single_partition_of_fp32_groups), fragments


def _of_stage_3(
    zero: Any,  # noqa: ANN401
    names: Mapping[int, str],
    rank: int,
) -> tuple[Sequence[torch.Tensor], list[ParameterShard]]:
    fragments = []
    for number, group in enumerate(zero.fp16_groups):
        for parameter in group:
            _, offset, size = zero.grad_position[zero.get_param_id(parameter)]
            start = rank * size
            count = min(size, parameter.ds_numel - start)  # the last ranks' slices are padded
            if count > 0:
                fragments.append(
                    ParameterShard(name=names[id(parameter)], start=start, count=count, buffer=number, offset=offset)
                )
    return list(zero.fp32_partitioned_groups_flat), fragments
