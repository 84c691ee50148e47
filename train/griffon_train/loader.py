"""The loader: the plan's steps, shared out to one rank, read and decoded by torch's DataLoader.

What a rank gets depends on plan, step, rank, world size and micro-batch alone; workers and prefetching only decide how
soon. A sample that cannot be read ends the run with its shard and key: nothing is skipped or replaced.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL.Image import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from griffon_shards.errors import DataError
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.types import Rendering, Turn
from griffon_train.encoding import PICTURE_TOKEN, REGION_TOKEN_ID, Encoded
from griffon_train.pictures import IMAGE_PX, REGION_PX, cropped, decode, resized
from griffon_train.processes import end_with_parent
from griffon_train.split import DUMMY, split_slots
from griffon_train.sweep import Order

_LOOK_EVERY_S = 1.0  # for workers that are gone, while a batch is awaited

STALL_S = 50.0
"""How long the next micro-batch may take before the run ends with an error."""


Encode = Callable[[Sequence[Turn], int, int, str], tuple[Encoded, bool]]
"""From turns, the numbers of pictures and regions, and where the sample is, to its tokens and whether they were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A sample's place in a global batch, and which sample stands there; a row of -1 is a dummy."""

    step: int
    slot: int
    set_no: int
    row: int
    variant: int


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
    picture_of_P: torch.Tensor
    regions_RHWC: torch.Tensor
    region_of_R: torch.Tensor

    def pin_memory(self) -> "Batch":
        """The same with its tensors in pinned memory; torch's DataLoader calls it."""
        tensors = {
            name: getattr(self, name).pin_memory()
            for name in ("pixels_PHWC", "picture_of_P", "regions_RHWC", "region_of_R")
        }
        return replace(self, **tensors)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """What a worker gives instead of a batch: an exception would come through torch as a page of traceback."""

    message: str


class _Samples(Dataset[Any]):
    """Map-style access to micro-batches of slots."""

    def __init__(self, sets: Sequence[FrozenSet], encode: Encode | None, image_px: int, region_px: int) -> None:
        self._sets, self._encode = sets, encode
        self._image_px, self._region_px = image_px, region_px

    def __getitem__(self, slot: Slot) -> Batch | _Unreadable:
        return self.__getitems__([slot])

    def __getitems__(self, slots: list[Slot]) -> Batch | _Unreadable:
        try:
            return self._batch(slots)
        except DataError as error:
            return _Unreadable(str(error))
        except OSError as error:
            return _Unreadable(f"{error.filename or self._where(slots)}: {error.strerror}")

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
                encoded, overlong[place] = self._encode(rendering.turns, int(sees), int(is_shown), where)
                examples[place] = encoded
                sees, is_shown = PICTURE_TOKEN in encoded.ids, REGION_TOKEN_ID in encoded.ids  # what was not cut off
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
            picture_of_P=torch.tensor([place for place, _ in pictures], dtype=torch.int64),
            regions_RHWC=_squares([region for _, region in regions], self._region_px),
            region_of_R=torch.tensor([place for place, _ in regions], dtype=torch.int64),
        )


def _region(picture: Image, rendering: Rendering) -> Image:
    assert rendering.region_xyxy_px is not None
    return cropped(picture, rendering.region_xyxy_px)


def _squares(pictures: list[Image], side_px: int) -> torch.Tensor:
    """All pictures as one uint8 tensor, shape [pictures, side_px, side_px, 3]; a worker makes it in shared memory."""
    pixels = torch.empty((len(pictures), side_px, side_px, 3), dtype=torch.uint8)
    if pictures and torch.utils.data.get_worker_info() is not None:
        pixels.share_memory_()  # or it would be copied once more on its way
    for place, picture in enumerate(pictures):
        pixels[place].numpy()[...] = resized(picture, side_px)
    return pixels


class _MicroBatches(Sampler[list[Slot]]):
    """The micro-batches of one rank from a step on, without end or up to a step."""

    def __init__(self, plan: Order, rank: int, world_size: int, micro_batch: int, start: int, stop: int | None) -> None:
        self._plan, self._rank, self._world_size, self._micro_batch = plan, rank, world_size, micro_batch
        self._start, self._stop = start, stop

    def __iter__(self) -> Iterator[list[Slot]]:
        number = self._start
        while self._stop is None or number < self._stop:
            yield from rank_slots(self._plan, number, self._rank, self._world_size, self._micro_batch)
            number += 1


def rank_slots(plan: Order, number: int, rank: int, world_size: int, micro_batch: int) -> list[list[Slot]]:
    """The micro-batches of one rank in one step."""
    step = plan.step(number)
    sets, rows, variants = step.sets.tolist(), step.rows.tolist(), step.variants.tolist()
    return [
        [
            Slot(step=number, slot=slot, set_no=sets[slot], row=rows[slot], variant=variants[slot])
            if slot != DUMMY
            else Slot(step=number, slot=DUMMY, set_no=0, row=DUMMY, variant=0)
            for slot in slots
        ]
        for slots in split_slots(step.lengths, world_size, micro_batch)[rank].tolist()
    ]


class Loader:
    """Iterates over the micro-batches of one rank, in order of steps; each step has `micro_steps` of them."""

    def __init__(
        self,
        plan: Order,
        *,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int = 1,
        workers: int = 2,
        encode: Encode | None = None,
        start: int = 0,
        stop: int | None = None,
        image_px: int = IMAGE_PX,
        region_px: int = REGION_PX,
        stall_s: float = STALL_S,
    ) -> None:
        """Make ready; workers start with the first batch.

        Args:
            plan: what comes when.
            rank: of this process.
            world_size: number of ranks.
            micro_batch: samples computed at once.
            workers: processes that read, decode and encode; 0 does it here.
            encode: makes tokens of conversations; without it a batch has none.
            start: first step.
            stop: one past the last step, or None to go on without end.
            image_px: side of the pictures.
            region_px: side of the regions.
            stall_s: how long a micro-batch may take; without workers nobody watches.
        """
        self._plan, self._stall_s = plan, stall_s
        self._sampler = _MicroBatches(plan, rank, world_size, micro_batch, start, stop)
        self._loader: DataLoader[Any] = _unwarned(
            DataLoader,
            _Samples(plan.sets, encode, image_px, region_px),
            batch_sampler=self._sampler,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            timeout=_LOOK_EVERY_S if workers else 0,
            # Workers only read and decode; forking them takes milliseconds, importing torch again seconds.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=_end_with_rank,
        )

    def __iter__(self) -> Iterator[Batch]:
        """The micro-batches.

        Raises:
            DataError: a sample cannot be read, a worker was lost, or storage stalls; it says what and where.
        """
        awaited = iter(self._sampler)
        batches = _started(self._loader)
        waited_s = 0.0
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # torch's: no answer yet, or a worker is gone
                if "timed out" in str(error) and waited_s + _LOOK_EVERY_S < self._stall_s:
                    waited_s += _LOOK_EVERY_S
                    continue
                raise DataError(f"{self._what_failed(error)}, awaiting {self._named(next(awaited))}") from error
            waited_s = 0.0
            next(awaited)
            if isinstance(batch, _Unreadable):
                raise DataError(batch.message)
            yield batch

    def _what_failed(self, error: Exception) -> str:
        if "timed out" in str(error):
            return f"storage stalls: nothing was read in {self._stall_s:.0f} s"
        # What it had ready cannot be fetched any more either, which comes as one of several errors of the system.
        lost = isinstance(error, OSError | EOFError) or "exited unexpectedly" in str(error)
        return "a reading process was killed, perhaps for memory" if lost else f"reading failed ({error})"

    def _named(self, slots: list[Slot]) -> str:
        """Step, shards and keys of a micro-batch."""
        there = [self._plan.sets[slot.set_no].where(slot.row) for slot in slots if slot.row != DUMMY]
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        return f"step {slots[0].step}: {'; '.join(there[:3])}{more}"


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers, without two things that torch does: warn of more of them than cores, and take over SIGCHLD.

    Its handler of that signal raises an error for a lost worker wherever this process is; we find it in `next`.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches: Iterator[Any] = _unwarned(iter, loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return batches


def _unwarned(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever is made
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return make(*args, **kwargs)


def _end_with_rank(_worker: int) -> None:
    end_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the rank does on a signal is not for its workers
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # torch hands a worker's own errors on; what is left is the noise of threads that lose their rank.
    sys.excepthook = lambda *_: None


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - the dataset gives whole micro-batches
    return batch
