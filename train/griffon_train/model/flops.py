"""Floating-point operations that a training step needs, for the model FLOP utilisation (MFU).

As in PaLM (Chowdhery et al., 2022, appendix B): two operations for each weight of a matrix and token in the forward
pass and four in the backward pass, and attention over complete sequences. What checkpointing computes again is not
counted, nor padding, norms, softmax and embeddings. Frozen weights need no gradients of their own, and parts that
nothing trained is before need no backward pass.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from griffon_train.model.griffon import GriffonForConditionalGeneration


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCounts:
    """Sums over the samples of a step, over all ranks.

    Attributes:
        tokens: tokens, with image tokens and without padding.
        squared_tokens: squared tokens of each sample.
        targets: target tokens.
        images: images.
        regions: regions.
    """

    tokens: int
    squared_tokens: int
    targets: int
    images: int
    regions: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Operations of a part of the model in one pass, for each unit that it processes.

    Attributes:
        weights: elements of its matrices, times the tokens of one unit.
        trained: the same of those that train.
        backward: whether gradients pass through it.
    """

    weights: float
    trained: float
    backward: bool

    def operations(self, units: float, attention: float = 0.0) -> float:
        """Operations of a step: matrices on so many units, and so many of attention in the forward pass."""
        matrices = 2 * units * (self.weights * (1 + self.backward) + self.trained)
        return matrices + attention * (1 + 2 * self.backward)


class ModelFlops:
    """The operations of steps of a model. Reads shapes only, also those of weights that ZeRO-3 has sharded."""

    def __init__(self, model: GriffonForConditionalGeneration) -> None:
        """Count the weights, with those that train; freeze the model before."""
        config: Any = model.config
        vision, region, text = config.vision_config, config.region_config, config.get_text_config()
        tower: Any = model.vision_tower
        layers = config.select_layer % (len(tower.encoder.layers) + 1)
        patches = config.patches_a_side**2
        self._tower_attention = 4.0 * layers * (patches + 1) ** 2 * vision.hidden_size
        # Images need no gradient, so the matrix that reads them has no backward pass but its own gradient.
        self._embedding = replace(_part([tower.embeddings.patch_embedding.weight], times=patches), backward=False)
        self._vision = _part(tower.encoder.layers[:layers].parameters(), times=patches + 1)
        trained = self._vision.backward or self._embedding.trained > 0
        self._projector = _part(model.projector.parameters(), times=model.image_tokens, upstream=trained)
        self._region = self._region_projector = _Part(0.0, 0.0, False)
        self._region_attention = 0.0
        if region is not None and model.region_tower is not None and model.region_projector is not None:
            patches = (region.image_size // region.patch_size) ** 2 + 1
            self._region_attention = 4.0 * region.num_hidden_layers * patches**2 * region.hidden_size
            whole: Any = model.region_tower
            self._region = _part([*whole.encoder.parameters(), whole.embeddings.patch_embedding.weight], times=patches)
            self._region_projector = _part(model.region_projector.parameters())
        upstream = self._projector.backward or self._region_projector.backward
        head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        matrices = [each for each in model.language_model.parameters() if each is not head and each is not embeddings]
        upstream = upstream or any(each.requires_grad for each in model.language_model.parameters())
        self._language, self._head = _part(matrices, upstream=upstream), _part([head], upstream=upstream)
        head_size = getattr(text, "head_dim", None)
        width = text.num_attention_heads * head_size if head_size else text.hidden_size
        self._attention_of_square = 4.0 * text.num_hidden_layers * width

    def of(self, counts: StepCounts) -> float:
        """The operations of a step with these samples."""
        return (
            self._embedding.operations(counts.images)
            + self._vision.operations(counts.images, counts.images * self._tower_attention)
            + self._projector.operations(counts.images)
            + self._region.operations(counts.regions, counts.regions * self._region_attention)
            + self._region_projector.operations(counts.regions)
            + self._language.operations(counts.tokens, counts.squared_tokens * self._attention_of_square)
            + self._head.operations(counts.targets)
        )


def _part(parameters: Iterable[torch.Tensor], *, times: int = 1, upstream: bool = False) -> _Part:
    """Count matrices; ZeRO-3 leaves a sharded weight's shape in `ds_shape`."""
    shapes = [(getattr(each, "ds_shape", each.shape), each.requires_grad) for each in parameters]
    sizes = [(float(torch.Size(shape).numel()), trains) for shape, trains in shapes if len(shape) > 1]
    weights, trained = sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)
    return _Part(times * weights, times * trained, upstream or any(trains for _, trains in shapes))


_PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Operations per second in bfloat16, dense, of the vendor's datasheets; the first whose name fits."""


def peak_flops(device_name: str) -> float | None:
    """The operations per second in bfloat16 that a GPU has by its datasheet; None if it is not listed."""
    return next((peak for name, peak in _PEAKS.items() if name in device_name), None)
