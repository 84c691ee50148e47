"""What `griffon-train memory` prints, and the line about memory that a run logs before its first step."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.tables import size, table
from griffon_train.config.settings import Settings
from griffon_train.data.lengths import Lengths
from griffon_train.model.config import GriffonConfig
from griffon_train.model.projector import image_tokens
from griffon_train.training.memory_advice import changes
from griffon_train.training.memory_estimate import Estimate, Ranks, described_model, dtype_of, estimate
from griffon_train.training.model_description import described_config

_MEMINFO = Path("/proc/meminfo")


class MemoryReport:
    """Estimates of a run and of runs with other settings."""

    def __init__(self, settings: Settings, ranks: Ranks, *, tokens: int | None, learned: int | None) -> None:
        """Read the model's configuration.

        Args:
            settings: settings of the run.
            ranks: its processes.
            tokens: of the longest sample; None for `--max-length`.
            learned: of these, those that are learned; None for all but an image's.

        Raises:
            SettingsError: there is no such model, or settings do not fit it.
            DataError: a configuration is damaged.
        """
        self._settings, self._ranks = settings, ranks
        self._tokens, self._learned = tokens, learned
        self._config = described_config(settings)
        self._image_tokens = image_tokens_of(self._config)
        self._made: dict[tuple[Settings, Ranks], Estimate] = {}

    def parts(self, gpu_memory: int | None) -> Iterator[str]:
        """Yield the parts of the report.

        Args:
            gpu_memory: bytes of a GPU; None for those of the first GPU here.
        """
        settings, ranks = self._settings, self._ranks
        now = self._of(settings, ranks)
        on = settings.memory.gradient_checkpointing
        other = self._of(replace(settings, memory=replace(settings.memory, gradient_checkpointing=not on)), ranks)
        yield self._head()
        yield _device_table(now, other, on=on, device=self._device)
        yield _host_table(now, ranks)
        limit = memory_here(ranks.device) if gpu_memory is None else gpu_memory
        yield "give --gpu-memory to see whether it fits" if limit is None else self._verdict(now, limit)

    @property
    def _device(self) -> str:
        return "GPU" if self._ranks.device == "cuda" else "rank"

    def _of(self, settings: Settings, ranks: Ranks) -> Estimate:
        """The estimate of a run with these settings, made once."""
        if (settings, ranks) not in self._made:
            tokens, learned = self._lengths(settings)
            self._made[settings, ranks] = estimate(self._config, settings, ranks, tokens=tokens, learned=learned)
        return self._made[settings, ranks]

    def _lengths(self, settings: Settings) -> tuple[int, int]:
        """Tokens of the longest sample, and of these the learned ones."""
        tokens = settings.data.max_length if self._tokens is None else min(self._tokens, settings.data.max_length)
        return tokens, max(0, tokens - self._image_tokens) if self._learned is None else min(self._learned, tokens)

    def _head(self) -> str:
        settings, ranks = self._settings, self._ranks
        model = described_model(self._config, settings, ranks.device)
        counts = [each.numel() for each in model.parameters()]
        trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
        vision: Any = self._config.vision_config
        samples, (tokens, learned) = settings.data.micro_batch, self._lengths(settings)
        dtype = str(dtype_of(settings.memory.dtype, ranks.device)).removeprefix("torch.")
        offloaded = "" if settings.memory.offload == "none" else f", --offload {settings.memory.offload}"
        return (
            f"{settings.model.model or settings.from_run}: {sum(counts):,} parameters, of which {trained:,} train, in "
            f"{dtype}; ZeRO-{settings.memory.zero}{offloaded}, {ranks.count} {self._device}{'s' * (ranks.count > 1)}\n"
            f"micro-batches of {samples} sample{'s' * (samples > 1)} of {tokens:,} tokens: {self._image_tokens:,} of "
            f"an image of {vision.image_size} px, {learned:,} learned"
        )

    def _verdict(self, now: Estimate, limit: int) -> str:
        needed = now.device if self._ranks.device == "cuda" else now.machine
        if needed <= limit:
            return f"fits: {size(needed)} of {size(limit)}"
        if self._ranks.device == "cpu":
            return f"does not fit: {size(needed)} are needed, and {size(limit)} are available"
        head = f"does not fit: {size(needed)} are needed, and a GPU has {size(limit)}"
        found = list(changes(self._settings, self._ranks, self._of, limit, self._image_tokens))
        if not found:
            return f"{head}; no setting changes that"
        rows = [(change.option, *map(_figure, (change.estimate.device, change.estimate.machine))) for change in found]
        fits = found[-1].estimate.device <= limit
        last = "" if fits else "\nit does not fit with all of these, either"
        return f"{head}. To change, each with those above it:\n{table(('option', 'each GPU', 'machine'), rows)}{last}"


def image_tokens_of(config: GriffonConfig) -> int:
    """Tokens of an image."""
    return image_tokens(config.projector, config.patches_a_side)


def _device_table(now: Estimate, other: Estimate, *, on: bool, device: str) -> str:
    both = (now, other) if on else (other, now)
    rows = [
        (name, *(_figure(rows_of[name]) for rows_of in map(_device_rows, both)))
        for name in _device_rows(now)
        if any(_device_rows(each)[name] for each in both)
    ]
    names = [f"with checkpointing{' *' * on}", f"without{' *' * (not on)}"]
    return f"{table((f'on each {device}', *names), rows)}\n* this run; parts peak at different times"


def _device_rows(of: Estimate) -> Mapping[str, int]:
    kept, batch = of.held, of.activations
    return {
        "weights": kept.weights,
        "float32 weights and moments of AdamW": kept.optimizer,
        "gradients, accumulated": kept.gradients,
        "communication buffers": kept.buffers,
        "weights gathered by ZeRO-3": kept.gathered + kept.arriving,
        "activations: images": batch.images,
        "activations: language model": batch.language,
        "logits and loss": batch.logits,
        "most, in forward and backward pass": of.passes,
        "most, in the optimizer's step": of.step,
        "allowance for CUDA, NCCL and fragmentation": of.allowance,
        "needed": of.device,
    }


def _host_table(of: Estimate, ranks: Ranks) -> str:
    rows = [*((name, _figure(bytes_)) for name, bytes_ in of.host.items()), ("needed", _figure(of.machine))]
    return table((f"on a machine with {ranks.per_machine} of them", ""), rows)


def _figure(number_bytes: int) -> str:
    return size(number_bytes).rjust(9) if number_bytes else "-".rjust(9)


def memory_line(config: GriffonConfig, settings: Settings, ranks: Ranks, lengths: Lengths) -> tuple[int, str]:
    """The estimate of a run that has loaded its model and is about to start.

    Returns:
        A level and a line to log; the level is WARNING if more memory is needed than is free.
    """
    device, image = ranks.device, image_tokens_of(config)
    tokens, learned = longest_sample(lengths, settings.data.max_length, image)
    try:
        found = estimate(config, settings, ranks, tokens=tokens, learned=learned)
    except SettingsError as error:
        return logging.INFO, str(error)
    line = (
        f"memory: about {size(found.tensors)} of tensors on each {'GPU' if device == 'cuda' else 'rank'}: "
        f"{size(found.held.weights)} weights, {size(found.held.optimizer)} optimizer, "
        f"{size(found.activations.peak)} activations and gradients of {settings.data.micro_batch} samples of "
        f"{tokens:,} tokens; {size(found.machine)} on this machine"
    )
    for needed, there, where in _needs(found, ranks):
        if there is not None and needed > there:
            return logging.WARNING, (
                f"{line}. Only {size(there)} are free {where}, and {size(needed)} are needed: give the same options to "
                "`griffon-train memory` to see what to change"
            )
    return logging.INFO, line


def _needs(found: Estimate, ranks: Ranks) -> Iterator[tuple[int, int | None, str]]:
    """Bytes that a run needs beyond the model that it has loaded, those that are free, and where."""
    if ranks.device == "cuda":
        yield found.device, memory_here("cuda"), "on the GPU"
        yield sum(found.offloaded.values()), memory_here("cpu"), "on this machine"
    else:
        loaded = ranks.per_machine * found.held.weights
        yield ranks.per_machine * found.tensors - loaded, memory_here("cpu"), "on this machine"


def longest_sample(lengths: Lengths, max_length: int, image: int) -> tuple[int, int]:
    """Tokens of the longest sample of the sets, and of these the text's, which may all be learned."""
    longest = text = 0
    for set_no, frozen in enumerate(lengths.sets):
        rows = len(frozen)
        for first in range(0, rows, 1 << 20):
            part = slice(first, min(first + (1 << 20), rows))
            texts = lengths.text_tokens(set_no, part)
            of_images = frozen.index["has_image"][part].astype(np.int64) * image
            if len(texts):
                longest = max(longest, int((texts + of_images).max()))
                text = max(text, int(texts.max()))
        frozen.let_index_go()
    longest = min(longest, max_length)
    return longest, min(text, longest)


def memory_here(device: str) -> int | None:
    """Bytes that are free on the first GPU, or available on this machine; None if unknown."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else None
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
