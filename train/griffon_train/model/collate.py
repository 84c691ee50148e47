"""Collates a micro-batch into the model's input tensors: right-padded, images normalised on the device."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

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
    if device.type == "cuda":  # only from pinned memory does a copy go on while this process does other things
        input_ids, mask, labels = input_ids.pin_memory(), mask.pin_memory(), labels.pin_memory()
    return ModelInputs(
        input_ids_BL=input_ids.to(device, non_blocking=True),
        attention_mask_BL=mask.to(device, non_blocking=True),
        labels_BL=labels.to(device, non_blocking=True),
        pixels_PCHW=pixels,
        regions_RCHW=regions,
    )


class InputsAhead:
    """Collates micro-batches; on CUDA each is copied on a stream of its own while the one before it is computed."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, ModelInputs]]:
        """Yield each micro-batch and its inputs, in order. On CUDA the next micro-batch is requested before."""
        if self._copies is None:
            for batch in batches:
                yield batch, collate(batch, self._device, self._dtype)
            return
        waiting: tuple[Batch, ModelInputs, torch.cuda.Event] | None = None
        for batch in batches:
            with torch.cuda.stream(self._copies):
                copying = batch, collate(batch, self._device, self._dtype), self._copies.record_event()
            if waiting is not None:
                yield self._copied(*waiting)
            waiting = copying
        if waiting is not None:
            yield self._copied(*waiting)

    def _copied(self, batch: Batch, inputs: ModelInputs, copied: torch.cuda.Event) -> tuple[Batch, ModelInputs]:
        """Let the current stream wait for a copy, whose memory is not used again before that stream is done with it."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for field in fields(inputs):
            tensor = getattr(inputs, field.name)
            if tensor is not None:
                tensor.record_stream(stream)
        return batch, inputs
