"""Collates a micro-batch into the model's input tensors: right-padded, images normalised on the device."""

from dataclasses import dataclass

import torch

from griffon_train.data.batch import Batch
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import IGNORE

_PADDING = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """Model inputs of a micro-batch of B samples with at most L tokens.

    Attributes:
        input_ids_BL: int64.
        attention_mask_BL: int64, 1 for a sample's tokens. A dummy sample has one 1, as softmax over nothing is NaN.
        labels_BL: int64, `IGNORE` for tokens that are not learned.
        pixels_PCHW: normalised images, or None.
        regions_RCHW: normalised regions, or None.
    """

    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor
    labels_BL: torch.Tensor
    pixels_PCHW: torch.Tensor | None
    regions_RCHW: torch.Tensor | None


def collate(batch: Batch, device: torch.device, dtype: torch.dtype) -> ModelInputs:
    """Collate a micro-batch; images and regions are in the order of their tokens."""
    rows = [(example.ids, example.labels) if example is not None else ([], []) for example in batch.examples]
    longest = max(1, *(len(ids) for ids, _ in rows))
    input_ids = torch.full((len(rows), longest), _PADDING)
    labels = torch.full((len(rows), longest), IGNORE)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for row, (ids, learned) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        labels[row, : len(learned)] = torch.tensor(learned, dtype=torch.int64)
        mask[row, : max(1, len(ids))] = 1
    pixels, regions = (
        normalised(images.to(device, non_blocking=True), dtype) if len(images) else None
        for images in (batch.pixels_PHWC, batch.regions_RHWC)
    )
    return ModelInputs(
        input_ids_BL=input_ids.to(device),
        attention_mask_BL=mask.to(device),
        labels_BL=labels.to(device),
        pixels_PCHW=pixels,
        regions_RCHW=regions,
    )
