"""Memory that a micro-batch takes while it is computed, found by running the model's own code on the meta device.

Tensors on the meta device have shapes and storages, but no bytes. Counting the storages that are alive while the real
forward and backward pass runs on them gives the peak, whatever the model's classes save or copy.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from griffon_train.model.config import GriffonConfig
from griffon_train.model.griffon import GriffonForConditionalGeneration as Model

_META = torch.device("meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The micro-batch to compute: samples of equal length, each with an image and, if the model sees any, a region.

    Attributes:
        samples: number of samples.
        tokens: tokens of each, with image tokens.
        learned: positions with a target token in any sample; logits are computed for these.
    """

    samples: int
    tokens: int
    learned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """Bytes that a micro-batch takes beside the model's weights.

    Attributes:
        images: kept for the backward pass by the vision tower, the region tower and the projectors.
        language: kept by the language model, without its logits.
        logits: taken by logits and loss at their peak, on top of what is kept.
        peak: the most at any time of forward and backward pass, with gradients as the rule keeps them.
    """

    images: int
    language: int
    logits: int
    peak: int


class GradientRule:
    """Frees each gradient when it is complete, as an optimizer does that keeps none. Others keep some."""

    def add(self, parameter: nn.Parameter) -> None:
        """Take a parameter's gradient, which has just been computed."""
        parameter.grad = None

    def end(self) -> None:
        """The backward pass is over."""


def model_on_meta(config: GriffonConfig, dtype: torch.dtype, attention: Mapping[str, str]) -> Model:
    """Make a model without weights.

    Args:
        config: configuration of the model.
        dtype: of the weights.
        attention: implementation for each sub-configuration (`griffon_train.model.attention`).
    """
    own: Any = deepcopy(config)
    if attention["text_config"] != "eager":  # the class that stands in for all fused kernels refuses to cap scores
        own.text_config.attn_logit_softcapping = None
    with _META:
        model = Model(own)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for name, part in (
        ("text_config", model.language_model),
        ("vision_config", model.vision_tower),
        ("region_config", model.region_tower),
    ):
        if part is not None:  # not by `set_attn_implementation`, which refuses what has no kernel here
            part.config._attn_implementation = "eager" if attention[name] == "eager" else _FUSED
    model.train()
    return model


_FUSED = "sdpa"
"""Stands in for all fused attention: the kernels keep queries, keys, values, the output and a row of sums."""


def activations(
    model: Model, batch: MicroBatch, *, checkpointing: bool, rule: GradientRule | None = None
) -> Activations:
    """Compute a micro-batch on the meta device and count what is alive.

    Args:
        model: made by `model_on_meta`, with its parts frozen.
        batch: the micro-batch.
        checkpointing: recompute activations in the backward pass.
        rule: what happens to gradients; by default they are freed at once.
    """
    rule = rule or GradientRule()
    dtype = model.dtype
    if checkpointing:
        fused = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), _FusedAttention())}
        model.activation_checkpointing_enable(fused)
    else:
        model.activation_checkpointing_disable()  # type: ignore[no-untyped-call]
    with _LiveBytes(model) as live, _gradients(model, rule), _watched_head(model, live) as head:
        with _FusedAttention():
            embeds = _embedded(model, batch, dtype)
            images = live.now
            keep = torch.zeros(batch.learned, dtype=torch.int64, device=_META)
            logits = model.language_model(
                inputs_embeds=embeds, attention_mask=_mask(model, batch), logits_to_keep=keep, use_cache=False
            ).logits
            targets = torch.zeros((batch.samples, batch.learned), dtype=torch.int64, device=_META)
            losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
            loss = losses.view(targets.shape).sum(dim=1).sum() * 1.0
            del logits, losses, embeds
        loss.backward()
        rule.end()
    return Activations(images=images, language=head.before - images, logits=head.peak - head.before, peak=live.peak)


class _Head:
    """Bytes that are alive before the head is called, and the peak until its backward pass is over."""

    before = peak = 0


@contextmanager
def _watched_head(model: Model, live: "_LiveBytes") -> Iterator[_Head]:
    """Note what is alive around the head and the loss."""
    head = _Head()

    def call(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        head.before = live.peak_since = live.now
        if args[0].requires_grad:
            args[0].register_hook(over)

    def over(_: torch.Tensor) -> None:
        head.peak = live.peak_since

    handle = model.get_output_embeddings().register_forward_pre_hook(call)
    try:
        yield head
    finally:
        handle.remove()
        head.peak = head.peak or live.peak_since


def _embedded(model: Model, batch: MicroBatch, dtype: torch.dtype) -> torch.Tensor:
    """Embeddings with features in place of image tokens, like the model's own, whose checks would need values."""

    def pixels(side: int) -> torch.Tensor:
        return torch.empty((batch.samples, 3, side, side), dtype=dtype, device=_META)

    config: Any = model.config
    ids = torch.zeros((batch.samples, batch.tokens), dtype=torch.int64, device=_META)
    embeds: torch.Tensor = model.get_input_embeddings()(ids)
    features = model.image_features(pixels(config.vision_config.image_size)).to(embeds.dtype)
    embeds = torch.cat([features, embeds[:, features.shape[1] :]], dim=1)[:, : batch.tokens]
    if model.region_tower is not None:
        embeds = embeds + model.region_features(pixels(config.region_config.image_size)).sum() * 0
    return embeds


def _mask(model: Model, batch: MicroBatch) -> torch.Tensor:
    """The mask of samples of which some are padded; for fused attention as transformers would make it from values."""
    if model.language_model.config._attn_implementation == _FUSED:
        return torch.ones((batch.samples, 1, batch.tokens, batch.tokens), dtype=torch.bool, device=_META)
    return torch.ones((batch.samples, batch.tokens), dtype=torch.int64, device=_META)


@contextmanager
def _gradients(model: nn.Module, rule: GradientRule) -> Iterator[None]:
    """Let a rule take each gradient when it is complete."""
    hooks = [
        parameter.register_post_accumulate_grad_hook(rule.add)
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that are alive; those of the model's weights and buffers do not count."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.peak_since = 0
        self._storages: dict[int, Any] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            self._storages[tensor.untyped_storage()._cdata] = None

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak, self.peak_since = max(self.peak, self.now), max(self.peak_since, self.now)


class _FusedAttention(TorchFunctionMode):
    """Replaces scaled_dot_product_attention, which on the meta device would keep all scores, by what kernels keep."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is F.scaled_dot_product_attention:
            return _KeptByFused.apply(*args[:3])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


class _KeptByFused(torch.autograd.Function):
    """The shapes that a fused attention kernel keeps and makes."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        output = torch.empty_like(query)
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ANN401
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
