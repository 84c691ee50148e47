"""A micro-batch, and how reading processes make one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

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
"""From turns, the numbers of pictures and regions, and where the sample is, to its tokens and whether they were cut."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """A micro-batch of one rank. B samples, of which P have a picture and R a region.

    Attributes:
        step: of the optimizer.
        slots: places in the global batch, -1 for a dummy; B.
        keys: of the samples, empty for a dummy; B.
        tasks: of the samples, empty for a dummy; B.
        pictured: whether the samples hold a picture, which the model sees unless it was cut off; B.
        conversations: of the samples, empty for a dummy; B.
        examples: the conversations as tokens, None for a dummy and where the loader has no way to encode; B.
        overlong: whether the tokens were cut; B.
        pixels_PHWC: pictures, uint8, shape [P, side, side, 3].
        picture_of_P: which of the B samples each picture belongs to, int64.
        regions_RHWC: crops that `<region>` stands for, uint8, shape [R, side, side, 3].
        region_of_R: which of the B samples each region belongs to, int64.
    """

    step: int
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    tasks: tuple[str, ...]
    pictured: tuple[bool, ...]
    conversations: tuple[tuple[Turn, ...], ...]
    examples: tuple[Encoded | None, ...]
    overlong: tuple[bool, ...]
    pixels_PHWC: torch.Tensor
    image_of_P: torch.Tensor
    regions_RHWC: torch.Tensor
    region_of_R: torch.Tensor

    def pin_memory(self) -> "Batch":
        """The same with its tensors in pinned memory; torch's DataLoader calls it."""
        names = ("pixels_PHWC", "image_of_P", "regions_RHWC", "region_of_R")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What a worker gives instead of a batch: an exception would come through torch as a page of traceback."""

    message: str


class SampleReader(Dataset[Any]):
    """Map-style access to micro-batches of slots."""

    def __init__(self, sets: Sequence[FrozenSet], encode: Encode | None, image_px: int, region_px: int) -> None:
        self._sets, self._encode = sets, encode
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
        """Tokens that are learned of some samples, their pictures left as they are."""
        targets = 0
        for slot in slots:
            if slot.row != DUMMY:
                assert self._encode is not None, "targets are counted in tokens"
                where = self._sets[slot.set_no].where(slot.row)
                sample = self._sets[slot.set_no][slot.row]
                encoded, _ = _encoded(self._encode, sample, sample.renderings[slot.variant], where)
                targets += encoded.targets
        return targets

    def _where(self, slots: list[Slot]) -> str:
        return self._sets[slots[0].set_no].where(slots[0].row) + ", or one read with it"

    def _batch(self, slots: list[Slot]) -> Batch:
        count = len(slots)
        keys, tasks = [""] * count, [""] * count
        conversations: list[tuple[Turn, ...]] = [()] * count
        examples: list[Encoded | None] = [None] * count
        pictured, overlong = [False] * count, [False] * count
        pictures: list[tuple[int, Image]] = []
        regions: list[tuple[int, Image]] = []
        for place, slot in enumerate(slots):
            if slot.row == DUMMY:
                continue
            where = self._sets[slot.set_no].where(slot.row)
            sample = self._sets[slot.set_no][slot.row]
            rendering = sample.renderings[slot.variant]
            keys[place], tasks[place], conversations[place] = sample.key, sample.task, rendering.turns
            sees, is_shown = sample.image is not None, rendering.region_xyxy_px is not None
            pictured[place] = sees
            if self._encode is not None:
                encoded, overlong[place] = _encoded(self._encode, sample, rendering, where)
                examples[place] = encoded
                sees, is_shown = IMAGE_TOKEN_ID in encoded.ids, REGION_TOKEN_ID in encoded.ids  # what was not cut off
            if sees or is_shown:
                picture = decode(sample, where)
                pictures += [(place, picture)] if sees else []
                regions += [(place, _region(picture, rendering))] if is_shown else []
        return Batch(
            step=slots[0].step,
            slots=tuple(slot.slot for slot in slots),
            keys=tuple(keys),
            tasks=tuple(tasks),
            pictured=tuple(pictured),
            conversations=tuple(conversations),
            examples=tuple(examples),
            overlong=tuple(overlong),
            pixels_PHWC=_squares([picture for _, picture in pictures], self._image_px),
            image_of_P=torch.tensor([place for place, _ in pictures], dtype=torch.int64),
            regions_RHWC=_squares([region for _, region in regions], self._region_px),
            region_of_R=torch.tensor([place for place, _ in regions], dtype=torch.int64),
        )


def _encoded(encode: Encode, sample: Sample, rendering: Rendering, where: str) -> tuple[Encoded, bool]:
    pictures, regions = int(sample.image is not None), int(rendering.region_xyxy_px is not None)
    return encode(rendering.turns, pictures, regions, where)


def _region(picture: Image, rendering: Rendering) -> Image:
    assert rendering.region_xyxy_px is not None
    return cropped(picture, rendering.region_xyxy_px)


def _squares(pictures: list[Image], side_px: int) -> torch.Tensor:
    """All pictures as one uint8 tensor, shape [pictures, side_px, side_px, 3]; a worker makes it in shared memory."""
    pixels = torch.empty((len(pictures), side_px, side_px, 3), dtype=torch.uint8)
    if pictures and torch.utils.data.get_worker_info() is not None:
        try:
            pixels.share_memory_()  # or it would be copied once more on its way
        except RuntimeError as error:
            if "shared memory" not in str(error):
                raise
            raise DataError(no_room()) from error
    for place, picture in enumerate(pictures):
        pixels[place].numpy()[...] = resized(picture, side_px)
    return pixels
