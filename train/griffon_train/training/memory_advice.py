"""Settings to change if a run does not fit into its devices' memory, those that cost least first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from griffon_train.config.settings import Settings
from griffon_train.training.memory_estimate import Estimate, Ranks

_MATTERS = 0.99
_SHORTEST = 1024
"""Samples are not made shorter than this, or than an image and as many tokens of text as a quarter of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of settings, on top of those before it.

    Attributes:
        option: the option to give.
        estimate: of the run with it.
    """

    option: str
    estimate: Estimate


Of = Callable[[Settings, Ranks], Estimate]
"""Makes an estimate."""


def changes(settings: Settings, ranks: Ranks, of: Of, limit: int, image_tokens: int) -> Iterator[Change]:
    """Changes that save memory, each with those before it, until the run fits or nothing is left to change.

    Args:
        settings: settings of the run.
        ranks: its processes.
        of: makes an estimate.
        limit: bytes of a device.
        image_tokens: tokens of an image.
    """
    now = of(settings, ranks)
    for option, change in _changes(ranks, image_tokens):
        if now.device <= limit:
            return
        changed, changed_ranks = change(settings), ranks
        if changed is None:
            continue
        estimate = of(changed, changed_ranks)
        if estimate.device < _MATTERS * now.device:
            settings, now = changed, estimate
            yield Change(option=option(changed), estimate=estimate)
    while now.device > limit and ranks.count < 64:
        ranks = replace(ranks, count=2 * ranks.count)
        estimate = of(settings, ranks)
        if estimate.device >= _MATTERS * now.device:
            return
        now = estimate
        yield Change(option=f"{ranks.count} GPUs", estimate=estimate)


def _changes(
    ranks: Ranks, image_tokens: int
) -> Iterator[tuple[Callable[[Settings], str], Callable[[Settings], Settings | None]]]:
    """How each change is written, and what it changes; None if there is nothing to change."""
    for _ in range(4):
        yield lambda new: f"--micro-batch {new.data.micro_batch}", _smaller_micro_batch
    yield lambda _: "--gradient-checkpointing true", _checkpointing
    if ranks.count > 1:
        yield lambda _: "--zero 3", lambda old: _memory(old, old.memory.zero == 2, zero=3)
    yield lambda _: "--offload optimizer", lambda old: _memory(old, old.memory.offload == "none", offload="optimizer")
    yield (
        lambda _: "--zero 3 --offload all",
        lambda old: _memory(old, old.memory.offload != "all", zero=3, offload="all"),
    )
    for _ in range(2):
        yield lambda new: f"--max-length {new.data.max_length}", lambda old: _shorter(old, image_tokens)


def _smaller_micro_batch(settings: Settings) -> Settings | None:
    size = settings.data.micro_batch
    return None if size == 1 else replace(settings, data=replace(settings.data, micro_batch=size // 2))


def _checkpointing(settings: Settings) -> Settings | None:
    if settings.memory.gradient_checkpointing:
        return None
    return replace(settings, memory=replace(settings.memory, gradient_checkpointing=True))


def _memory(settings: Settings, possible: bool, **values: object) -> Settings | None:
    if not possible or settings.memory.deepspeed is not None:  # a file says what is offloaded
        return None
    return replace(settings, memory=replace(settings.memory, **values))  # type: ignore[arg-type]


def _shorter(settings: Settings, image_tokens: int) -> Settings | None:
    length = settings.data.max_length // 2
    if length < max(_SHORTEST, image_tokens * 5 // 4):
        return None
    return replace(settings, data=replace(settings.data, max_length=length))
