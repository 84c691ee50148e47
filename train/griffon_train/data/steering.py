"""What may be changed about steps to come: which are left out, and the learning rate from a step on.

It is how a run goes on after a loss that is not a number. What trained steps were steered with is kept with the cursor,
so a run that goes on is still exactly the run that was given the same from its beginning.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from griffon_shards.support.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Steps left out, and learning rates from a step on. `step in steering` says whether it is left out.

    Attributes:
        skipped: first step and one past the last, in order, with gaps between them.
        rates: a step, and the learning rate that holds from it on, in order.
    """

    skipped: tuple[tuple[int, int], ...] = ()
    rates: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, skip_steps: Sequence[str], lr_from: Sequence[str]) -> "Steering":
        """As given on the command line: `A:B` or `A`, and `STEP=LR`.

        Raises:
            SettingsError: one is not that, or a step has two rates.
        """
        rates: dict[int, float] = {}
        for given in lr_from:
            step, rate = _rate(given)
            if rates.setdefault(step, rate) != rate:
                raise SettingsError(f"--lr-from {given}: step {step} has {rates[step]} already; give one rate for it")
        return cls(skipped=_merged(map(_skipped, skip_steps)), rates=tuple(sorted(rates.items())))

    def __contains__(self, step: object) -> bool:
        return isinstance(step, int) and any(first <= step < stop for first, stop in self.skipped)

    def ratio(self, step: int, lr: float) -> float:
        """What the learning rates of a step are multiplied with, for `lr` to become the one that holds there."""
        held = [rate for first, rate in self.rates if first <= step]
        return held[-1] / lr if held else 1.0

    def before(self, step: int) -> "Steering":
        """What of it concerns steps before that one."""
        skipped = tuple((first, min(stop, step)) for first, stop in self.skipped if first < step)
        return Steering(skipped=skipped, rates=tuple(each for each in self.rates if each[0] < step))

    def state(self) -> dict[str, Any]:
        """In plain types, for a checkpoint."""
        return {"skipped": [list(each) for each in self.skipped], "rates": [list(each) for each in self.rates]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Steering":
        """What `state` has made."""
        return cls(
            skipped=tuple((first, stop) for first, stop in state.get("skipped", ())),
            rates=tuple((step, rate) for step, rate in state.get("rates", ())),
        )

    def __str__(self) -> str:
        """As it is given on the command line."""
        options = [f"--skip-steps {first}:{stop}" for first, stop in self.skipped]
        options += [f"--lr-from {step}={rate}" for step, rate in self.rates]
        return " ".join(options) or "neither --skip-steps nor --lr-from"


def _skipped(given: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)(?::(\d+))?", given)
    first, stop = (int(found[1]), int(found[2] or int(found[1]) + 1)) if found else (0, 0)
    if first >= stop:
        raise SettingsError(
            f"--skip-steps {given}: expected A:B with A below B, which leaves out the steps A to B - 1, "
            "as metrics.jsonl numbers them"
        )
    return first, stop


def _rate(given: str) -> tuple[int, float]:
    step, _, rate = given.partition("=")
    try:
        found = int(step), float(rate)
    except ValueError:
        found = -1, 0.0
    if found[0] < 0 or not 0 < found[1] < math.inf:
        raise SettingsError(f"--lr-from {given}: expected STEP=LR, such as 1200=1e-5")
    return found


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, stop in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((first, stop))
    return tuple(merged)
