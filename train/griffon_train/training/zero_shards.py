"""Which piece of which parameter this rank holds, in DeepSpeed's flat buffers, under ZeRO-2 and ZeRO-3.

DeepSpeed flattens the parameters of a group, in float32, and gives every rank a part. Here such a part is looked at
parameter by parameter, so that what is saved on some ranks can be read on any other number of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from griffon_train.training.engine import Engine

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's, by the names that torch gives them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShard:
    """Elements [start, start + count) of a parameter, seen as a row; they stand at `offset` in buffer `buffer`."""

    name: str
    start: int
    count: int
    buffer: int
    offset: int


class ShardedState:
    """The float32 weights and moments that this rank holds of all that trains.

    Attributes:
        buffers: DeepSpeed's own, flat.
        fragments: what stands in them; alignment may leave gaps.
    """

    def __init__(self, engine: Engine) -> None:
        self._zero = engine.optimizer
        names = {id(parameter): name for name, parameter in engine.module.named_parameters()}
        self._sharded_weights = engine.zero_optimization_stage() == 3
        if self._sharded_weights:
            self.buffers, self.fragments = _of_stage_3(self._zero, names)
        else:
            self.buffers, self.fragments = _of_stage_2(self._zero, names)
        self._parameters = {name: parameter for name, parameter in engine.module.named_parameters()}

    def moments(self, buffer: int) -> Mapping[str, torch.Tensor]:
        """The moments that go with a buffer; made, as zeros, where the optimizer has not stepped yet."""
        flat = self.buffers[buffer]
        state = self._zero.optimizer.state[flat]
        for name in MOMENTS:
            if name not in state:
                state[name] = torch.zeros_like(flat.data)
        state.setdefault("step", torch.tensor(0.0))  # AdamW takes a state that is not empty for a whole one
        return {name: state[name] for name in MOMENTS}

    def set_steps(self, steps: int) -> None:
        """How often the optimizer has stepped; AdamW's correction of its first steps depends on it."""
        for flat in self.buffers:
            self._zero.optimizer.state[flat]["step"] = torch.tensor(float(steps))

    def steps(self) -> int:
        """How often the optimizer has stepped."""
        states = [self._zero.optimizer.state.get(flat, {}) for flat in self.buffers]
        found = {int(state["step"]) for state in states if "step" in state}
        assert len(found) <= 1, f"the optimizer's buffers differ in steps: {found}"
        return found.pop() if found else 0

    @torch.no_grad()
    def weights_to_model(self) -> None:
        """Give the model the float32 weights that were put into the buffers, on every rank at once."""
        if not self._sharded_weights:
            self._zero.update_lp_params()
            return
        for flat, low in zip(self.buffers, self._zero.fp16_partitioned_groups_flat, strict=True):
            low.data.copy_(flat.data)
        small = self._zero.persistent_parameters  # which every rank keeps whole
        if small:
            small[0].all_gather(small)

    def differing(self) -> list[str]:
        """Parameters whose weights in the model are not what the buffers hold, in the model's precision."""
        wrong = []
        for each in self.fragments:
            parameter = self._parameters[each.name]
            model = (
                parameter.ds_tensor.view(-1)[: each.count]
                if self._sharded_weights
                else parameter.detach().view(-1)[each.start : each.start + each.count]
            )
            held = self.buffers[each.buffer].data[each.offset : each.offset + each.count]
            if not torch.equal(model.cpu(), held.to(model.dtype).cpu()):
                wrong.append(each.name)
        return wrong


def _of_stage_2(zero: Any, names: Mapping[int, str]) -> tuple[Sequence[torch.Tensor], list[ParameterShard]]:  # noqa: ANN401
    fragments = []
    for number, group in enumerate(zero.bit16_groups):
        for parameter in group:
            mapping = parameter._hp_mapping
            if mapping is not None:  # else none of it is this rank's
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


def _of_stage_3(zero: Any, names: Mapping[int, str]) -> tuple[Sequence[torch.Tensor], list[ParameterShard]]:  # noqa: ANN401
    fragments = []
    rank = distributed.get_rank()
    for number, group in enumerate(zero.fp16_groups):
        for parameter in group:
            _, offset, size = zero.grad_position[zero.get_param_id(parameter)]
            start = rank * size
            count = min(size, parameter.ds_numel - start)  # the last ranks' parts are filled up
            if count > 0:
                fragments.append(
                    ParameterShard(name=names[id(parameter)], start=start, count=count, buffer=number, offset=offset)
                )
    return list(zero.fp32_partitioned_groups_flat), fragments
