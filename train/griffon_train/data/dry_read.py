"""`griffon-train read`: run the loader of every rank, each in its own process, and report the samples of each step."""

import hashlib
import multiprocessing
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.support.processes import end_with_parent
from griffon_train.data.batch import Batch
from griffon_train.data.images import REGION_PX
from griffon_train.data.loader import Loader
from griffon_train.data.node_reader import NodeReader, needs_server, node_reader
from griffon_train.data.plan import Plan
from griffon_train.data.rank_split import DUMMY, micro_steps
from griffon_train.data.shared_memory import check_shared_memory, needed_bytes
from griffon_train.data.source_stream import Shows


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSample:
    """A sample that a rank has read; `sha256` covers the decoded tensors and the conversation."""

    step: int
    slot: int
    key: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings:
    """Settings that the loaders of all ranks share."""

    world_size: int
    micro_batch: int
    workers: int
    start: int
    stop: int
    image_px: int
    stall_s: float


def read_steps(plan: Plan, settings: RankSettings) -> Iterator[list[ReadSample]]:
    """Yield the samples of each step, sorted by slot, read by all ranks in parallel.

    Raises:
        SettingsError: shared memory is too small.
        DataError: a rank failed; the others are killed.
    """
    check_shared_memory(
        needed_bytes(
            Shows.of(plan.sets),
            workers=settings.workers,
            micro_batch=settings.micro_batch,
            image_px=settings.image_px,
            region_px=REGION_PX,
        ),
        settings.world_size,
    )
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    ranks: list[tuple[BaseProcess, Connection]] = []
    reader = node_reader(range(settings.world_size), plan.sets) if needs_server(plan) else None
    try:
        for rank in range(settings.world_size):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_rank, args=(plan, settings, rank, reader, theirs), name=f"rank {rank}")
            process.start()
            theirs.close()
            ranks.append((process, ours))
        for step in range(settings.start, settings.stop):
            parts = [_received(rank, connection, step) for rank, (_, connection) in enumerate(ranks)]
            yield sorted((sample for part in parts for sample in part), key=lambda sample: sample.slot)
    finally:
        for process, _ in ranks:
            process.kill()  # their workers end with them
        for process, _ in ranks:
            process.join()
        if reader is not None:
            reader.stop()


def _received(rank: int, connection: Connection, step: int) -> list[ReadSample]:
    try:
        received: list[ReadSample] | str = connection.recv()
    except EOFError:
        raise DataError(f"rank {rank} was killed at step {step}, possibly for lack of memory") from None
    if isinstance(received, str):
        raise DataError(f"rank {rank}: {received}")
    return received


def _rank(plan: Plan, settings: RankSettings, rank: int, reader: NodeReader | None, connection: Connection) -> None:
    """Run one rank: send the hashed samples of each step, or an error message."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent kills every rank
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    loader = Loader(
        plan,
        rank=rank,
        world_size=settings.world_size,
        micro_batch=settings.micro_batch,
        workers=settings.workers,
        start=settings.start,
        stop=settings.stop,
        image_px=settings.image_px,
        stall_s=settings.stall_s,
        reader=reader,
    )
    batches = iter(loader)
    try:
        for _ in range(settings.start, settings.stop):
            samples: list[ReadSample] = []
            for _ in range(micro_steps(plan.global_batch, settings.world_size, settings.micro_batch)):
                samples += hashed(next(batches))
            connection.send(samples)
    except DataError as error:
        connection.send(str(error))


def hashed(batch: Batch) -> list[ReadSample]:
    """Return the samples of a micro-batch, without dummies, each with the SHA-256 of its model input."""
    images = dict(zip(batch.image_of_P.tolist(), batch.pixels_PHWC, strict=True))
    regions = dict(zip(batch.region_of_R.tolist(), batch.regions_RHWC, strict=True))
    samples = []
    for index, (slot, key, turns) in enumerate(zip(batch.slots, batch.keys, batch.conversations, strict=True)):
        if slot == DUMMY:
            continue
        digest = hashlib.sha256(orjson.dumps([[turn.role, turn.text] for turn in turns]))
        for pixels in (images.get(index), regions.get(index)):
            if pixels is not None:
                digest.update(repr(tuple(pixels.shape)).encode())
                digest.update(pixels.numpy().data)
        samples.append(ReadSample(step=batch.step, slot=slot, key=key, sha256=digest.hexdigest()))
    return samples
