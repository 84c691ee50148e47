"""A micro-batch, and how worker processes read one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from PIL.Image import Image
from torch.utils.data import Dataset

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError
from griffon_shards.types import Rendering, Sample, Turn
from griffon_train.data.images import cropped, decode, resized
from griffon_train.data.rank_split import DUMMY
from griffon_train.data.shared_memory import no_room
from griffon_train.data.slots import ReadRequest, Slot
from griffon_train.text.tokenization import IMAGE_TOKEN_ID, REGION_TOKEN_ID, Encoded

T = TypeVar("T")

Encode = Callable[[Sequence[Turn], int, int, str], tuple[Encoded, bool]]
"""Encodes a sample.

Takes the turns, the number of images, the number of regions, and the sample's location for messages. Returns the tokens
and whether they were too long.
"""


class ReadRaw(Protocol):
    """Reads the tar bytes of slots' samples, which are checked; `last` if they are not read again."""

    def __call__(self, slots: Sequence[Slot], *, last: bool) -> list[bytes]:
        """Raise DataError if a sample cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """A micro-batch of one rank: B samples, P images and R regions.

    Attributes:
        step: optimizer step.
        slots: positions in the global batch, -1 for a dummy; length B.
        keys: sample keys, empty for a dummy; length B.
        tasks: sample tasks, empty for a dummy; length B.
        has_image: whether the sample has an image, which the model sees unless truncation removed it; length B.
        conversations: the turns, empty for a dummy; length B.
        examples: the encoded conversations, None for a dummy or if the loader has no `encode`; length B.
        overlong: whether the sample was longer than allowed; length B.
        pixels_PHWC: images, uint8, shape [P, side, side, 3].
        image_of_P: index of the sample that each image belongs to, int64, shape [P].
        regions_RHWC: the crops that `<region>` stands for, uint8, shape [R, side, side, 3].
        region_of_R: index of the sample that each region belongs to, int64, shape [R].
    """

    step: int
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    tasks: tuple[str, ...]
    has_image: tuple[bool, ...]
    conversations: tuple[tuple[Turn, ...], ...]
    examples: tuple[Encoded | None, ...]
    overlong: tuple[bool, ...]
    pixels_PHWC: torch.Tensor
    image_of_P: torch.Tensor
    regions_RHWC: torch.Tensor
    region_of_R: torch.Tensor

    def pin_memory(self) -> "Batch":
        """Return a copy with its tensors in pinned memory; torch's DataLoader calls this."""
        names = ("pixels_PHWC", "image_of_P", "regions_RHWC", "region_of_R")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An error that a worker returns in place of a batch; torch would turn an exception into a long traceback."""

    message: str


class SampleReader(Dataset[Any]):
    """A map-style dataset whose items are micro-batches, requested by their slots."""

    def __init__(
        self,
        sets: Sequence[FrozenSet],
        encode: Encode | None,
        image_px: int,
        region_px: int,
        raw: ReadRaw | None = None,
    ) -> None:
        self._sets, self._encode, self._raw = sets, encode, raw
        self._image_px, self._region_px = image_px, region_px

    def __getitem__(self, request: ReadRequest) -> tuple[Batch | Unreadable | None, int | Unreadable]:
        return self.__getitems__(request)

    def __getitems__(self, request: ReadRequest) -> tuple[Batch | Unreadable | None, int | Unreadable]:
        batch = self._unless_unreadable(self._batch, request.slots) if request.slots else None
        return batch, self._unless_unreadable(self._targets, request.ahead)

    def _unless_unreadable(self, read: Callable[[list[Slot]], T], slots: list[Slot]) -> T | Unreadable:
        try:
            return read(slots)
        except DataError as error:
            return Unreadable(str(error))
        except OSError as error:
            return Unreadable(f"{error.filename or self._where(slots)}: {error.strerror}")

    def _targets(self, slots: list[Slot]) -> int:
        """Count the target tokens of some samples, without decoding their images."""
        targets = 0
        for slot, sample in self._samples(slots, last=False):
            if sample is not None:
                assert self._encode is not None, "counting targets requires an encoder"
                where = self._sets[slot.set_no].where(slot.row)
                encoded, _ = _encoded(self._encode, sample, sample.renderings[slot.variant], where)
                targets += encoded.targets
        return targets

    def _samples(self, slots: list[Slot], *, last: bool) -> Iterator[tuple[Slot, Sample | None]]:
        """Yield slots with their samples, None for a dummy; `last` if they are not read again."""
        if self._raw is None:
            yield from ((slot, self._sets[slot.set_no][slot.row] if slot.row != DUMMY else None) for slot in slots)
            return
        raw = iter(self._raw([slot for slot in slots if slot.row != DUMMY], last=last))
        for slot in slots:
            yield slot, self._sets[slot.set_no].decoded(slot.row, next(raw)) if slot.row != DUMMY else None

    def _where(self, slots: list[Slot]) -> str:
        return self._sets[slots[0].set_no].where(slots[0].row) + " or another sample of its micro-batch"

    def _batch(self, slots: list[Slot]) -> Batch:
        count = len(slots)
        keys, tasks = [""] * count, [""] * count
        conversations: list[tuple[Turn, ...]] = [()] * count
        examples: list[Encoded | None] = [None] * count
        with_image, overlong = [False] * count, [False] * count
        images: list[tuple[int, Image]] = []
        regions: list[tuple[int, Image]] = []
        for index, (slot, sample) in enumerate(self._samples(slots, last=True)):
            if sample is None:
                continue
            where = self._sets[slot.set_no].where(slot.row)
            rendering = sample.renderings[slot.variant]
            keys[index], tasks[index], conversations[index] = sample.key, sample.task, rendering.turns
            has_image, has_region = sample.image is not None, rendering.region_xyxy_px is not None
            with_image[index] = has_image
            if self._encode is not None:
                encoded, overlong[index] = _encoded(self._encode, sample, rendering, where)
                examples[index] = encoded
                # Truncation may have removed either.
                has_image, has_region = IMAGE_TOKEN_ID in encoded.ids, REGION_TOKEN_ID in encoded.ids
            if has_image or has_region:
                image = decode(sample, where)
                images += [(index, image)] if has_image else []
                regions += [(index, _region(image, rendering))] if has_region else []
        return Batch(
            step=slots[0].step,
            slots=tuple(slot.slot for slot in slots),
            keys=tuple(keys),
            tasks=tuple(tasks),
            has_image=tuple(with_image),
            conversations=tuple(conversations),
            examples=tuple(examples),
            overlong=tuple(overlong),
            pixels_PHWC=_squares([image for _, image in images], self._image_px),
            image_of_P=torch.tensor([index for index, _ in images], dtype=torch.int64),
            regions_RHWC=_squares([region for _, region in regions], self._region_px),
            region_of_R=torch.tensor([index for index, _ in regions], dtype=torch.int64),
        )


def _encoded(encode: Encode, sample: Sample, rendering: Rendering, where: str) -> tuple[Encoded, bool]:
    images, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
    return encode(rendering.turns, images, regions, where)


def _region(image: Image, rendering: Rendering) -> Image:
    assert rendering.region_xyxy_px is not None
    return cropped(image, rendering.region_xyxy_px)


def _squares(images: list[Image], side_px: int) -> torch.Tensor:
    """Resize images into one uint8 tensor, shape [images, side_px, side_px, 3]; in shared memory if in a worker."""
    pixels = torch.empty((len(images), side_px, side_px, 3), dtype=torch.uint8)
    if images and torch.utils.data.get_worker_info() is not None:
        try:
            pixels.share_memory_()  # saves a copy on the way to the rank
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            raise DataError(no_room()) from error
    for index, image in enumerate(images):
        pixels[index].numpy()[...] = resized(image, side_px)
    return pixels
