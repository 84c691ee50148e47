"""The loader: the plan's steps, shared out to one rank, read and decoded by torch's DataLoader.

What a rank gets depends on plan, step, rank, world size and micro-batch alone; workers and prefetching only decide how
soon. A sample that cannot be read ends the run with its shard and key: nothing is skipped or replaced.
"""

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader

from griffon_shards.support.errors import DataError
from griffon_train.data.batch import Batch, Encode, SampleReader, Unreadable
from griffon_train.data.images import IMAGE_PX, REGION_PX
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY, micro_steps
from griffon_train.data.sequential_order import StepOrder
from griffon_train.data.shared_memory import AHEAD, no_room
from griffon_train.data.slots import ReadRequest, ReadRequests, Slot, rank_slots
from griffon_train.data.worker_process import end_with_parent, leave_signals_to_rank

__all__ = ["STALL_S", "Batch", "Encode", "Loader", "Slot", "StepBatches", "rank_slots"]

T = TypeVar("T")

_LOOK_EVERY_S = 1.0  # for workers that are gone, while a batch is awaited

STALL_S = 50.0
"""How long the next micro-batch may take before the run ends with an error."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepBatches:
    """What one rank computes of a step. The number of targets is known before the first picture is there.

    Attributes:
        step: of the optimizer.
        targets: tokens that are learned in all its micro-batches.
        batches: the micro-batches, read as they are asked for; take them all before the next share.
    """

    step: int
    targets: int
    batches: Iterator[Batch]


class StopSignal(Protocol):
    """Ranks that go on together, and stop together."""

    def asked_to_stop(self, patience_s: float) -> bool:
        """Whether this rank is to stop, or is told so within some seconds; asked every second of waiting for data."""

    def go_on(self) -> None:
        """Meet the other ranks after a micro-batch, or instead of one; raises an error on all if one is to stop."""


class Loader:
    """Iterates over the micro-batches of one rank, in order of steps; each step has `micro_steps` of them."""

    def __init__(
        self,
        plan: StepOrder,
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
        company: StopSignal | None = None,
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
        self._samples = SampleReader(plan.sets, encode, image_px, region_px)

    def __iter__(self) -> Iterator[Batch]:
        """The micro-batches.

        Raises:
            DataError: a sample cannot be read, a worker was lost, or storage stalls; it says what and where.
        """
        for batch, _ in self._messages(counted=False):
            assert batch is not None
            yield batch

    def steps(self) -> Iterator[StepBatches]:
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
            yield StepBatches(step=number, targets=targets, batches=_batches(islice(messages, of_a_step), counts))

    def _numbers(self) -> Iterator[int]:
        """The steps."""
        numbers = count(self._start) if self._stop is None else range(self._start, self._stop)
        return (number for number in numbers if number not in self._skipped)

    def _messages(self, *, counted: bool) -> Iterator[tuple[Batch | None, int | Unreadable]]:
        """What the workers send, in the order of what they were asked for."""
        requests = ReadRequests(self._slots_of, self._numbers, counted=counted)
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

    def _named(self, request: ReadRequest) -> str:
        """Step, shards and keys of a micro-batch."""
        slots = request.slots or request.ahead
        there = [self._plan.sets[slot.set_no].where(slot.row) for slot in slots if slot.row != DUMMY]
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        return f"step {slots[0].step}: {'; '.join(there[:3])}{more}"


def _batches(
    messages: Iterable[tuple[Batch | None, int | Unreadable]], counts: list[int | Unreadable]
) -> Iterator[Batch]:
    """The micro-batches of a step; the targets of the next one's are noted in `counts`."""
    for batch, targets in messages:
        assert batch is not None
        counts.append(targets)
        yield batch


def _readable(sent: T | Unreadable) -> T:
    if isinstance(sent, Unreadable):
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
