"""The loader: one rank's part of each step of the plan, read and decoded by torch's DataLoader.

A rank's samples depend only on plan, step, rank, world size and micro-batch; workers and prefetching only affect speed.
A sample that cannot be read ends the run with an error that names its shard and key; nothing is skipped or replaced.
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

from torch.utils.data import DataLoader

from griffon_shards.support.errors import DataError
from griffon_shards.support.processes import end_with_parent
from griffon_train.data.batch import Batch, Encode, SampleReader, Unreadable
from griffon_train.data.images import IMAGE_PX, REGION_PX
from griffon_train.data.node_reader import NodeReader, ReadOrder
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY, micro_steps
from griffon_train.data.sequential_order import StepOrder
from griffon_train.data.shared_memory import AHEAD, no_room
from griffon_train.data.slots import ReadRequest, ReadRequests, Slot, rank_slots
from griffon_train.data.worker_process import leave_signals_to_rank

__all__ = ["STALL_S", "Batch", "Encode", "Loader", "Slot", "StepBatches", "rank_slots"]

T = TypeVar("T")

_LOOK_EVERY_S = 1.0  # how often to check for lost workers while waiting for a batch

STALL_S = 70.0
"""How long the next micro-batch may take before the run ends with an error; longer than reads are retried."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepBatches:
    """One rank's micro-batches of a step. The number of targets is known before the first image is decoded.

    Attributes:
        step: optimizer step.
        targets: target tokens of all its micro-batches.
        batches: the micro-batches, read lazily; consume all of them before requesting the next step.
    """

    step: int
    targets: int
    batches: Iterator[Batch]


class StopSignal(Protocol):
    """Lets the ranks agree on whether to continue, so that all of them stop at the same micro-batch."""

    def asked_to_stop(self, patience_s: float) -> bool:
        """Return whether a stop is requested now or within `patience_s` seconds; called every second while waiting."""

    def go_on(self) -> None:
        """Synchronize with the other ranks before a micro-batch is used; raises on all ranks if one must stop."""


class Loader:
    """Iterates over the micro-batches of one rank, step by step; each step has `micro_steps` of them."""

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
        stop_signal: StopSignal | None = None,
        pinned: bool = False,
        reader: NodeReader | None = None,
        cached: bool = False,
    ) -> None:
        """Prepare the loader; workers start when iteration starts.

        Args:
            plan: maps a step to its samples.
            rank: rank of this process.
            world_size: number of ranks.
            micro_batch: samples per micro-batch.
            workers: processes that read, decode and encode; 0 does this in the current process.
            encode: turns conversations into tokens; without it batches have no tokens.
            start: first step.
            stop: one past the last step, or None for no end.
            skipped: steps to skip; none of their samples is read.
            image_px: side of the images.
            region_px: side of the regions.
            stall_s: seconds that a micro-batch may take; not checked without workers.
            stop_signal: the other ranks, which may request a stop before the next micro-batch.
            pinned: put images into pinned memory, to copy them to a GPU.
            reader: the machine's reading process; without it, samples are read where they are decoded.
            cached: let the reading process keep in its cache, if it has one, what the plan reads again.
        """
        self._plan, self._stall_s, self._workers, self._stop_signal = plan, stall_s, workers, stop_signal
        self._pinned = pinned
        self._start, self._stop, self._skipped = start, stop, skipped
        self._micro_batch, self._world_size = micro_batch, world_size
        self._slots_of = partial(rank_slots, plan, rank=rank, world_size=world_size, micro_batch=micro_batch)
        self._samples = partial(SampleReader, plan.sets, encode, image_px, region_px)
        self._reader, self._cached = reader, cached

    def __iter__(self) -> Iterator[Batch]:
        """Yield the micro-batches.

        Raises:
            DataError: a sample cannot be read, a worker was lost, or storage stalls; the message names the samples.
        """
        for batch, _ in self._messages(counted=False):
            assert batch is not None
            yield batch

    def steps(self) -> Iterator[StepBatches]:
        """Yield this rank's part of each step of a plan; only a few micro-batches are in memory at any time.

        Raises:
            DataError: as for iteration.
        """
        assert isinstance(self._plan, Plan), "the steps of a sequential order differ in size"
        of_a_step = micro_steps(self._plan.global_batch, self._world_size, self._micro_batch)
        messages = self._messages(counted=True)
        counts = [targets for _, targets in islice(messages, of_a_step)]
        for step in self._steps():
            targets = sum(map(_readable, counts))
            counts = []
            yield StepBatches(step=step, targets=targets, batches=_batches(islice(messages, of_a_step), counts))

    def _steps(self) -> Iterator[int]:
        """Yield the numbers of the steps that are not skipped."""
        steps = count(self._start) if self._stop is None else range(self._start, self._stop)
        return (step for step in steps if step not in self._skipped)

    def _messages(self, *, counted: bool) -> Iterator[tuple[Batch | None, int | Unreadable]]:
        """Yield what the workers send, in the order of the requests."""
        if self._reader is None:
            yield from self._messages_of(self._samples(), counted=counted)
            return
        order = ReadOrder(
            order=self._plan,
            ranks=self._reader.ranks,
            world_size=self._world_size,
            micro_batch=self._micro_batch,
            start=self._start,
            stop=self._stop,
            skipped=self._skipped,
            cached=self._cached,
        )
        number = self._reader.open(order)
        try:
            samples = self._samples(raw=partial(self._reader.read, number))
            yield from self._messages_of(samples, counted=counted)
        finally:
            self._reader.close(number)

    def _messages_of(self, samples: SampleReader, *, counted: bool) -> Iterator[tuple[Batch | None, int | Unreadable]]:
        requests = ReadRequests(self._slots_of, self._steps, counted=counted)
        loader: DataLoader[Any] = _unwarned(
            DataLoader,
            samples,
            batch_sampler=requests,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            prefetch_factor=AHEAD if self._workers else None,
            pin_memory=self._pinned,
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
            except (RuntimeError, OSError, EOFError) as error:  # from torch: no answer yet, or a worker is lost
                self._perhaps_stop(error)
                if "timed out" in str(error) and waited_s + _LOOK_EVERY_S < self._stall_s:
                    waited_s += _LOOK_EVERY_S
                    continue
                raise DataError(
                    f"{self._what_failed(error, messages)}, while waiting for {self._named(next(awaited))}"
                ) from error
            waited_s = 0.0
            next(awaited)
            if self._stop_signal is not None:
                self._stop_signal.go_on()
            yield _readable(batch), targets

    def _perhaps_stop(self, error: Exception) -> None:
        """Stop if requested, without waiting for data; a signal to all processes may have ended the workers first."""
        patience_s = 0.0 if "timed out" in str(error) else _LOOK_EVERY_S
        if self._stop_signal is not None and self._stop_signal.asked_to_stop(patience_s):
            self._stop_signal.go_on()

    def _what_failed(self, error: Exception, messages: Iterator[Any]) -> str:
        if "timed out" in str(error):
            return f"storage stalled: nothing was read for {self._stall_s:.0f} s"
        if any(worker.exitcode == -signal.SIGBUS for worker in getattr(messages, "_workers", ())):
            return no_room()
        # Batches that the lost worker had prepared are lost, too; fetching them raises one of several system errors.
        lost = isinstance(error, OSError | EOFError) or "exited unexpectedly" in str(error)
        return "a worker process was killed, possibly for lack of memory" if lost else f"reading failed ({error})"

    def _named(self, request: ReadRequest) -> str:
        """Name the step, shards and keys of a micro-batch."""
        slots = request.slots or request.ahead
        samples = [self._plan.sets[slot.set_no].where(slot.row) for slot in slots if slot.row != DUMMY]
        more = f" and {len(samples) - 3} more" if len(samples) > 3 else ""
        return f"step {slots[0].step}: {'; '.join(samples[:3])}{more}"


def _batches(
    messages: Iterable[tuple[Batch | None, int | Unreadable]], counts: list[int | Unreadable]
) -> Iterator[Batch]:
    """Yield the micro-batches of a step; append the target counts of the next step to `counts`."""
    for batch, targets in messages:
        assert batch is not None
        counts.append(targets)
        yield batch


def _readable(sent: T | Unreadable) -> T:
    if isinstance(sent, Unreadable):
        raise DataError(sent.message)
    return sent


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers, without torch's warning about more workers than cores and without its SIGCHLD handler.

    That handler raises an error for a lost worker at any point of this process; we detect lost workers in `next`.
    """
    before = signal.getsignal(signal.SIGCHLD)
    batches: Iterator[Any] = _unwarned(iter, loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return batches


def _unwarned(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - returns what `make` returns
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        return make(*args, **kwargs)


def _end_with_rank(_worker: int) -> None:
    end_with_parent()
    leave_signals_to_rank()
    # torch forwards a worker's own errors; the rest is noise from threads that lost their rank.
    sys.excepthook = lambda *_: None


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - the dataset returns complete micro-batches
    return batch
