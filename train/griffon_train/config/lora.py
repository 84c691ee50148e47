"""LoRA: low-rank adapters that train in place of the language model's own weights. Does not import torch or peft."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

from griffon_train.config.options import Count, Option, Positive, Share

_NAMES = re.compile(r"[\w.]+( *, *[\w.]+)*")
"""Names of layers, or the ends of their names; anything else is a regular expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Adapters of the language model; there are none without `lora_r`."""

    lora_r: Annotated[
        Count | None,
        Option(
            "LoRA rank. Freezes the language model's own weights; the other parts train as without LoRA.",
            unset="no LoRA",
        ),
    ] = None
    lora_alpha: Annotated[
        Positive | None,
        Option("LoRA alpha: the output of an adapter is multiplied by alpha / r.", unset="twice --lora-r"),
    ] = None
    lora_dropout: Annotated[Share, Option("Dropout probability of an adapter's input.")] = 0.0
    lora_targets: Annotated[
        str | None,
        Option(
            "Linear layers of the language model to adapt: names such as q_proj,v_proj, or a regular expression for "
            "complete names such as model.layers.0.self_attn.q_proj.",
            unset="all but the head",
        ),
    ] = None

    @property
    def enabled(self) -> bool:
        """Whether adapters train."""
        return self.lora_r is not None

    @property
    def alpha(self) -> float:
        """The scale, also where it is not given."""
        assert self.lora_r is not None
        return float(2 * self.lora_r if self.lora_alpha is None else self.lora_alpha)

    def adapts(self, layer: str) -> bool:
        """Whether `lora_targets` selects a linear layer of the language model, by its complete name in it."""
        if self.lora_targets is None:
            return True
        if _NAMES.fullmatch(self.lora_targets):
            return any(_ends_with(layer, name) for name in _names(self.lora_targets))
        return re.fullmatch(self.lora_targets, layer) is not None

    def unknown_targets(self, layers: Iterable[str]) -> list[str]:
        """The names in `lora_targets` that are those of no layer; none of a regular expression."""
        names = _names(self.lora_targets) if self.lora_targets and _NAMES.fullmatch(self.lora_targets) else []
        known = list(layers)
        return [name for name in names if not any(_ends_with(layer, name) for layer in known)]


def _names(targets: str) -> list[str]:
    return [name.strip() for name in targets.split(",")]


def _ends_with(layer: str, name: str) -> bool:
    return f".{layer}".endswith(f".{name}")


def lora_problems(
    lora: LoraSettings, trained: tuple[str, ...], named: Callable[[str], str], flags: str
) -> Iterator[str]:
    """Contradictions of LoRA's settings to each other and to what trains, one line each.

    Args:
        lora: settings of a run.
        trained: parts that train by the freezing flags.
        named: formats a setting with its value and origin.
        flags: the freezing flags that are given.
    """
    defaults = LoraSettings()
    alone = [
        named(name)
        for name in ("lora_alpha", "lora_dropout", "lora_targets")
        if getattr(lora, name) != getattr(defaults, name)
    ]
    if not lora.enabled and alone:
        yield f"{', '.join(alone)}: without a rank there is no LoRA; also give --lora-r"
    try:
        lora.adapts("")
    except re.error as error:
        yield f"{named('lora_targets')}: neither names of layers nor a regular expression: {error}"
    if lora.enabled and "language_model" not in trained:
        yield (
            f"{named('lora_r')} and {flags} contradict each other: LoRA's adapters are in the language model, which "
            "would not train. LoRA freezes the language model's own weights by itself; leave one out"
        )
