"""From a micro-batch to the tensors that the model takes: padded on the right, pictures normalised on the device."""

from dataclasses import dataclass

import torch

from griffon_train.data.batch import Batch
from griffon_train.model.normalize import normalised
from griffon_train.text.chat_templates import IGNORE

_PADDING = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelInputs:
    """A micro-batch of B samples, L tokens at most, as the model takes it.

    Attributes:
        input_ids_BL: int64.
        attention_mask_BL: int64; 1 for a sample's tokens. A dummy has one, for attention to nothing is not a number.
        labels_BL: int64, `IGNORE` where nothing is learned.
        pixels_PCHW: normalised pictures, or None.
        regions_RCHW: normalised regions, or None.
    """

    input_ids_BL: torch.Tensor
    attention_mask_BL: torch.Tensor
    labels_BL: torch.Tensor
    pixels_PCHW: torch.Tensor | None
    regions_RCHW: torch.Tensor | None


def collate(batch: Batch, device: torch.device, dtype: torch.dtype) -> ModelInputs:
    """The tensors of a micro-batch; pictures and regions in the order of their tokens."""
    rows = [(example.ids, example.labels) if example is not None else ([], []) for example in batch.examples]
    longest = max(1, *(len(ids) for ids, _ in rows))
    input_ids = torch.full((len(rows), longest), _PADDING)
    labels = torch.full((len(rows), longest), IGNORE)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for number, (ids, learned) in enumerate(rows):
        input_ids[number, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        labels[number, : len(learned)] = torch.tensor(learned, dtype=torch.int64)
        mask[number, : max(1, len(ids))] = 1
    pixels, regions = (
        normalised(each.to(device, non_blocking=True), dtype) if len(each) else None
        for each in (batch.pixels_PHWC, batch.regions_RHWC)
    )
    return ModelInputs(
        input_ids_BL=input_ids.to(device),
        attention_mask_BL=mask.to(device),
        labels_BL=labels.to(device),
        pixels_PCHW=pixels,
        regions_RCHW=regions,
    )
