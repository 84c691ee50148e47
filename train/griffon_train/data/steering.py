"""Changes to future steps: skipped steps, and a new learning rate from a given step.

They let a run continue after a loss that is not a number. The cursor stores the changes that trained steps had, so a
resumed run is identical to one that had the same options from the start.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffon_shards.support.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Skipped steps and changed learning rates. `step in steering` is true if the step is skipped.

    Attributes:
        skipped: sorted, disjoint ranges of steps, each as the first step and one past the last.
        rates: sorted pairs of a step and the learning rate that applies from that step.
    """

    skipped: tuple[tuple[int, int], ...] = ()
    rates: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, skip_steps: Sequence[str], lr_from: Sequence[str]) -> "Steering":
        """Parse command-line values: `A:B` or `A`, and `STEP=LR`.

        Raises:
            SettingsError: a value is malformed, or a step has two rates.
        """
        rates: dict[int, float] = {}
        for given in lr_from:
            step, rate = _rate(given)
            if rates.setdefault(step, rate) != rate:
                raise SettingsError(f"--lr-from {given}: step {step} already has {rates[step]}; give one rate per step")
        return cls(skipped=_merged(_skipped(given) for given in skip_steps), rates=tuple(sorted(rates.items())))

    def __contains__(self, step: object) -> bool:
        return isinstance(step, int) and any(first <= step < stop for first, stop in self.skipped)

    def ratio(self, step: int, lr: float) -> float:
        """Return the factor that turns `lr` into the learning rate at a step."""
        held = [rate for first, rate in self.rates if first <= step]
        return held[-1] / lr if held else 1.0

    def before(self, step: int) -> "Steering":
        """Return the part that affects steps before the given one."""
        skipped = tuple((first, min(stop, step)) for first, stop in self.skipped if first < step)
        return Steering(skipped=skipped, rates=tuple(change for change in self.rates if change[0] < step))

    def state(self) -> dict[str, Any]:
        """Return it in plain types for a checkpoint."""
        return {"skipped": [list(steps) for steps in self.skipped], "rates": [list(change) for change in self.rates]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Steering":
        """Restore it from the result of `state`."""
        return cls(
            skipped=tuple((first, stop) for first, stop in state.get("skipped", ())),
            rates=tuple((step, rate) for step, rate in state.get("rates", ())),
        )

    def __str__(self) -> str:
        """Format it as command-line options."""
        options = [f"--skip-steps {first}:{stop}" for first, stop in self.skipped]
        options += [f"--lr-from {step}={rate}" for step, rate in self.rates]
        return " ".join(options) or "neither --skip-steps nor --lr-from"


def steps_between(option: str, given: str, does: str) -> range:
    """Parse `A:B`, the steps A to B - 1, or `A`, that step alone.

    Args:
        option: name of the option, for the message.
        given: its value.
        does: what it does to the steps, for the message.

    Raises:
        SettingsError: the value is malformed, or there are no such steps.
    """
    match = re.fullmatch(r"(\d+)(?::(\d+))?", given)
    steps = range(int(match[1]), int(match[2] or int(match[1]) + 1)) if match else range(0)
    if not steps:
        raise SettingsError(
            f"{option} {given}: expected A:B with A below B, which {does} the steps A to B - 1, "
            "as numbered in metrics.jsonl"
        )
    return steps


def _skipped(given: str) -> tuple[int, int]:
    steps = steps_between("--skip-steps", given, "skips")
    return steps.start, steps.stop


def _rate(given: str) -> tuple[int, float]:
    step, _, rate = given.partition("=")
    try:
        change = int(step), float(rate)
    except ValueError:
        change = -1, 0.0
    if change[0] < 0 or not 0 < change[1] < math.inf:
        raise SettingsError(f"--lr-from {given}: expected STEP=LR, such as 1200=1e-5")
    return change


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, stop in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((first, stop))
    return tuple(merged)
