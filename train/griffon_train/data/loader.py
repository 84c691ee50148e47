"""The loader: the plan's steps, shared out to one rank, read and decoded by torch's DataLoader.

What a rank gets depends on plan, step, rank, world size and micro-batch alone; workers and prefetching only decide how
soon. A sample that cannot be read ends the run with its shard and key: nothing is skipped or replaced.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import Any, Protocol, TypeVar

import torch
from PIL.Image import Image
from torch.utils.data import DataLoader, Dataset

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError
from griffon_shards.types import Rendering, Sample, Turn
from griffon_train.data.images import IMAGE_PX, REGION_PX, cropped, decode, resized
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY, micro_steps
from griffon_train.data.sequential_order import Order
from griffon_train.data.shared_memory import AHEAD, no_room
from griffon_train.data.slots import Request, Requests, Slot, rank_slots
from griffon_train.data.worker_process import end_with_parent
from griffon_train.text.tokenization import PICTURE_TOKEN, REGION_TOKEN_ID, Encoded
from griffon_train.training.watchdog import leave_signals_to_rank

__all__ = ["STALL_S", "Batch", "Encode", "Loader", "Share", "Slot", "rank_slots"]

T = TypeVar("T")

_LOOK_EVERY_S = 1.0  # for workers that are gone, while a batch is awaited

STALL_S = 50.0
"""How long the next micro-batch may take before the run ends with an error."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """What one rank computes of a step. The number of targets is known before the first picture is there.

    Attributes:
        step: of the optimizer.
        targets: tokens that are learned in all its micro-batches.
        batches: the micro-batches, read as they are asked for; take them all before the next share.
    """

    step: int
    targets: int
    batches: Iterator[Batch]


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """What a worker gives instead of a batch: an exception would come through torch as a page of traceback."""

    message: str


class _Samples(Dataset[Any]):
    """Map-style access to micro-batches of slots."""

    def __init__(self, sets: Sequence[FrozenSet], encode: Encode | None, image_px: int, region_px: int) -> None:
        self._sets, self._encode = sets, encode
        self._image_px, self._region_px = image_px, region_px

    def __getitem__(self, request: Request) -> tuple[Batch | _Unreadable | None, int | _Unreadable]:
        return self.__getitems__(request)

    def __getitems__(self, request: Request) -> tuple[Batch | _Unreadable | None, int | _Unreadable]:
        batch = self._unless_unreadable(self._batch, request.slots) if request.slots else None
        return batch, self._unless_unreadable(self._targets, request.ahead)

    def _unless_unreadable(self, read: Callable[[list[Slot]], T], slots: list[Slot]) -> T | _Unreadable:
        try:
            return read(slots)
        except DataError as error:
            return _Unreadable(str(error))
        except OSError as error:
            return _Unreadable(f"{error.filename or self._where(slots)}: {error.strerror}")

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


class Company(Protocol):
    """Ranks that go on together, and stop together."""

    def asked_to_stop(self, patience_s: float) -> bool:
        """Whether this rank is to stop, or is told so within some seconds; asked every second of waiting for data."""

    def go_on(self) -> None:
        """Meet the other ranks after a micro-batch, or instead of one; raises an error on all if one is to stop."""


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
        skipped: Container[int] = (),
        image_px: int = IMAGE_PX,
        region_px: int = REGION_PX,
        stall_s: float = STALL_S,
        company: Company | None = None,
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
            skipped: steps that are left out: nothing of them is read.
            image_px: side of the pictures.
            region_px: side of the regions.
            stall_s: how long a micro-batch may take; without workers nobody watches.
            company: of other ranks, which may have to stop before the next micro-batch.
        """
        self._plan, self._stall_s, self._workers, self._company = plan, stall_s, workers, company
        self._start, self._stop, self._skipped = start, stop, skipped
        self._micro_batch, self._world_size = micro_batch, world_size
        self._slots_of = partial(rank_slots, plan, rank=rank, world_size=world_size, micro_batch=micro_batch)
        self._samples = _Samples(plan.sets, encode, image_px, region_px)

    def __iter__(self) -> Iterator[Batch]:
        """The micro-batches.

        Raises:
            DataError: a sample cannot be read, a worker was lost, or storage stalls; it says what and where.
        """
        for batch, _ in self._messages(counted=False):
            assert batch is not None
            yield batch

    def steps(self) -> Iterator[Share]:
        """This rank's share of each step of a plan; a few micro-batches are held at once, however many a step has.

        Raises: as iterating.
        """
        assert isinstance(self._plan, Plan), "the steps of a sweep have unlike numbers of micro-batches"
        of_a_step = micro_steps(self._plan.global_batch, self._world_size, self._micro_batch)
        messages = self._messages(counted=True)
        counts = [targets for _, targets in islice(messages, of_a_step)]
        for number in self._numbers():
            targets = sum(map(_readable, counts))
            counts = []
            yield Share(step=number, targets=targets, batches=_batches(islice(messages, of_a_step), counts))

    def _numbers(self) -> Iterator[int]:
        """The steps."""
        numbers = count(self._start) if self._stop is None else range(self._start, self._stop)
        return (number for number in numbers if number not in self._skipped)

    def _messages(self, *, counted: bool) -> Iterator[tuple[Batch | None, int | _Unreadable]]:
        """What the workers send, in the order of what they were asked for."""
        requests = Requests(self._slots_of, self._numbers, counted=counted)
        loader: DataLoader[Any] = _unwarned(
            DataLoader,
            self._samples,
            batch_sampler=requests,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            prefetch_factor=AHEAD if self._workers else None,
            pin_memory=torch.cuda.is_available(),
            timeout=_LOOK_EVERY_S if self._workers else 0,
            # Workers only read and decode; forking them takes milliseconds, importing torch again seconds.
            multiprocessing_context="fork" if self._workers and sys.platform == "linux" else None,
            worker_init_fn=_end_with_rank,
        )
        awaited = iter(requests)
        messages = _started(loader)
        waited_s = 0.0
        while True:
            try:
                batch, targets = next(messages)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:  # torch's: no answer yet, or a worker is gone
                self._perhaps_stop(error)
                if "timed out" in str(error) and waited_s + _LOOK_EVERY_S < self._stall_s:
                    waited_s += _LOOK_EVERY_S
                    continue
                raise DataError(
                    f"{self._what_failed(error, messages)}, awaiting {self._named(next(awaited))}"
                ) from error
            waited_s = 0.0
            next(awaited)
            if self._company is not None:
                self._company.go_on()
            yield _readable(batch), targets

    def _perhaps_stop(self, error: Exception) -> None:
        """A request to stop does not wait for data; and if it went to all processes, it has ended workers first."""
        patience_s = 0.0 if "timed out" in str(error) else _LOOK_EVERY_S
        if self._company is not None and self._company.asked_to_stop(patience_s):
            self._company.go_on()

    def _what_failed(self, error: Exception, messages: Iterator[Any]) -> str:
        if "timed out" in str(error):
            return f"storage stalls: nothing was read in {self._stall_s:.0f} s"
        if any(worker.exitcode == -signal.SIGBUS for worker in getattr(messages, "_workers", ())):
            return no_room()
        # What it had ready cannot be fetched any more either, which comes as one of several errors of the system.
        lost = isinstance(error, OSError | EOFError) or "exited unexpectedly" in str(error)
        return "a reading process was killed, perhaps for memory" if lost else f"reading failed ({error})"

    def _named(self, request: Request) -> str:
        """Step, shards and keys of a micro-batch."""
        slots = request.slots or request.ahead
        there = [self._plan.sets[slot.set_no].where(slot.row) for slot in slots if slot.row != DUMMY]
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        return f"step {slots[0].step}: {'; '.join(there[:3])}{more}"


def _batches(
    messages: Iterable[tuple[Batch | None, int | _Unreadable]], counts: list[int | _Unreadable]
) -> Iterator[Batch]:
    """The micro-batches of a step; the targets of the next one's are noted in `counts`."""
    for batch, targets in messages:
        assert batch is not None
        counts.append(targets)
        yield batch


def _readable(sent: T | _Unreadable) -> T:
    if isinstance(sent, _Unreadable):
        raise DataError(sent.message)
    return sent


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
    leave_signals_to_rank()
    # torch hands a worker's own errors on; what is left is the noise of threads that lose their rank.
    sys.excepthook = lambda *_: None


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - the dataset gives whole micro-batches
    return batch
