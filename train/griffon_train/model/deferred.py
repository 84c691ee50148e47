"""Weights whose values are computed only when they are needed, one at a time, so that a process never holds them all.

These are the random weights of a new model, and sums of weights and LoRA's adapters.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from griffon_train.model.weight_files import drop_pages

_Module = TypeVar("_Module", bound=nn.Module)


def defer(parameter: nn.Parameter, value: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Have the value of a parameter computed later, from the one that it would have without this call."""
    before = getattr(parameter, "deferred", None)
    parameter.deferred = (  # type: ignore[attr-defined]
        (lambda: value(parameter.data)) if before is None else (lambda: value(before()))
    )


def is_deferred(parameter: torch.Tensor) -> bool:
    """Return whether the value of a parameter is still to be computed; what its memory holds means nothing."""
    return hasattr(parameter, "deferred")


def value_of(parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the value of a parameter, in a type; it is computed anew in each call if it is deferred."""
    deferred: Callable[[], torch.Tensor] | None = getattr(parameter, "deferred", None)
    with torch.no_grad():
        return (parameter.data if deferred is None else deferred()).to(dtype)


def settle(parameters: Iterable[nn.Parameter], dtype: torch.dtype) -> None:
    """Compute the values of parameters that are deferred, and convert all to a type."""
    for parameter in parameters:
        parameter.data = value_of(parameter, dtype)
        forget(parameter)


def forget(parameter: torch.Tensor) -> None:
    """Leave a parameter as it is in memory, as it has or will be given another value."""
    if is_deferred(parameter):
        del parameter.deferred  # type: ignore[attr-defined]


def drawn_later(make: Callable[[], _Module]) -> _Module:
    """Make a model with random weights, which are drawn when they are needed; they are those that `make` alone draws.

    torch's generator is left as `make` leaves it. Each weight is drawn once meanwhile, which is the only way to know
    the generator's state before the next one, and then taken out of memory.
    """
    with _Recording() as recording:
        model = make()
    for parameter in model.parameters():
        steps = recording.steps.get(parameter.untyped_storage().data_ptr(), [])
        if any(step.state is not None for step in steps):
            defer(parameter, partial(_repeated, steps=steps))
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """An operation that changed a tensor in place, and the state of torch's generator before, if it drew from it."""

    operation: Callable[..., object]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    state: torch.Tensor | None


class _Recording(TorchDispatchMode):
    """Records how the values of tensors come about, by the address of their memory, and drops those that are drawn."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: dict[int, list[_Step]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operation of torch
        types: Any,  # noqa: ANN401
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        written = func._schema.arguments[0].alias_info if func._schema.arguments else None
        if written is None or not written.is_write or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        tensor, storage = args[0], args[0].untyped_storage()
        draws = torch.Tag.nondeterministic_seeded in func.tags
        step = _Step(operation=func, args=args, kwargs=kwargs, state=torch.get_rng_state() if draws else None)
        steps = self.steps.setdefault(storage.data_ptr(), [])
        if draws and tensor.nbytes == storage.nbytes():
            steps.clear()  # nothing is left of what it held
        steps.append(step)
        result = func(*args, **kwargs)
        if any(each.state is not None for each in steps):
            drop_pages(torch.empty(0, dtype=torch.uint8).set_(storage))
        return result


def _repeated(held: torch.Tensor, steps: Sequence[_Step]) -> torch.Tensor:
    """Compute the values of a tensor again, in the memory that it had in the beginning."""
    with torch.random.fork_rng(devices=[]):
        for step in steps:
            if step.state is not None:
                torch.set_rng_state(step.state)
            step.operation(*step.args, **step.kwargs)
    return held
