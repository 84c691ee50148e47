"""Reads samples through the process of this machine that alone talks to the object store: `read_server.py`.

It has one connection pool for all ranks and their workers, reads what the plan says comes next, and keeps the cache.
Workers stay forks of their rank that hold no client: one that is inherited can hang.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.storage import ObjectPath
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.data.sequential_order import StepOrder
from griffon_train.data.slots import Slot

_START_S = 60.0
_RETRY_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Where samples are kept on this machine's disk, and the bytes that they may take."""

    folder: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOrder:
    """What the ranks of a machine will read, and in which order.

    Attributes:
        order: maps a step to its samples.
        ranks: the machine's ranks.
        world_size: number of all ranks.
        micro_batch: samples per micro-batch.
        start: first step.
        stop: one past the last step, or None for no end.
        skipped: steps that are not read.
        cached: keep what is read in the cache, if there is one.
    """

    order: StepOrder
    ranks: tuple[int, ...]
    world_size: int
    micro_batch: int
    start: int
    stop: int | None
    skipped: Container[int]
    cached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress:
    """How the ranks of a machine reach its reading process."""

    socket: str
    key: bytes


class NodeReader:
    """This machine's reading process, as one of its ranks sees it. Worker processes inherit it."""

    def __init__(
        self, address: ServerAddress, ranks: tuple[int, ...], server: "subprocess.Popen[bytes] | None"
    ) -> None:
        """Connect on first use.

        Args:
            address: the address that `start_server` returned on the machine's first rank.
            ranks: ranks on this machine.
            server: the process, on the rank that started it.
        """
        self.ranks = ranks
        self._address, self._server, self._owner = address, server, os.getpid()
        self._opened = 0
        self._connections: dict[int, Connection] = {}  # by process: a fork makes its own
        if server is not None:
            self._stop = weakref.finalize(self, _stop, server, os.getpid())

    def open(self, order: ReadOrder) -> int:
        """Announce an order that will be read; returns its number. All ranks of the machine open the same ones.

        Raises:
            DataError: a set is damaged, or the storage cannot be used.
            SettingsError: the cache cannot be used.
        """
        self._opened += 1
        self._ask("open", self._opened, order)
        return self._opened

    def close(self, number: int) -> None:
        """End an order; what was read ahead of it is dropped."""
        with suppress(DataError):  # it has ended, which whoever reads reports
            self._ask("close", number)

    def read(self, number: int, slots: Sequence[Slot], *, last: bool) -> list[bytes]:
        """The tar bytes of some slots' samples, checked against the index; dummies are not allowed.

        Args:
            number: number of the order.
            slots: slots of one of its steps.
            last: whether these slots are not read again.

        Raises:
            DataError: a sample cannot be read; the message names its shard and key.
        """
        wanted = [(slot.step, slot.slot) for slot in slots]
        samples: list[bytes] = self._ask("read", number, wanted, last)
        return samples

    def figures(self) -> dict[str, int]:
        """Bytes fetched from storage (`fetched`) and read from the cache (`cached`) so far."""
        figures: dict[str, int] = self._ask("figures")
        return figures

    def stop(self) -> None:
        """End the process, on the rank that started it."""
        if self._server is not None and self._stop.alive:
            self._stop()

    def _ask(self, *question: Any) -> Any:  # noqa: ANN401 - whatever the answer is
        try:
            connection = self._connection()
            connection.send(question)
            answer = connection.recv()
        except (EOFError, OSError):
            raise DataError(
                "the process that reads samples for this machine was killed, possibly for lack of memory; rerun the "
                "same command"
            ) from None
        if isinstance(answer, DataError | SettingsError):
            raise answer
        return answer

    def _connection(self) -> Connection:
        connection = self._connections.get(os.getpid())
        if connection is None:
            self._connections.clear()
            connection = self._connections[os.getpid()] = _connected(
                self._address, self._server if os.getpid() == self._owner else None
            )
        return connection


def start_server(
    sets: Iterable[FrozenSet] = (), cache: CacheSettings | None = None
) -> "tuple[ServerAddress, subprocess.Popen[bytes]]":
    """Start this machine's reading process; it ends with the process that starts it.

    Args:
        sets: sets that will be read; what their object stores need is imported at once.
        cache: where to keep what was read.
    """
    name = f"griffon-train-{secrets.token_hex(8)}"
    socket = f"\0{name}" if sys.platform == "linux" else str(Path(tempfile.gettempdir()) / name)
    address = ServerAddress(socket=socket, key=secrets.token_bytes(32))
    server = subprocess.Popen(
        [sys.executable, "-m", "griffon_train.data.read_server"],
        stdin=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None
    urls = "\n".join(str(frozen.root) for frozen in sets if isinstance(frozen.root, ObjectPath))
    limits = (str(cache.folder), str(cache.size_bytes)) if cache is not None else ("", "0")
    lines = (address.socket.encode().hex(), address.key.hex(), *(text.encode().hex() for text in (*limits, urls)))
    server.stdin.write("".join(f"{line}\n" for line in lines).encode())
    server.stdin.flush()
    return address, server


def node_reader(
    ranks: Sequence[int] = (0,), sets: Iterable[FrozenSet] = (), cache: CacheSettings | None = None
) -> NodeReader:
    """Start the reading process for a rank that is alone, or for a process that will fork these ranks."""
    address, server = start_server(sets, cache)
    return NodeReader(address, tuple(ranks), server)


def needs_server(order: StepOrder) -> bool:
    """Whether some of an order's sets are in an object store."""
    return any(isinstance(frozen.root, ObjectPath) for frozen in order.sets)


def _connected(address: ServerAddress, server: "subprocess.Popen[bytes] | None") -> Connection:
    end = time.monotonic() + _START_S
    while True:
        try:
            return Client(address.socket, "AF_UNIX", authkey=address.key)
        except (ConnectionRefusedError, FileNotFoundError):
            if time.monotonic() > end or (server is not None and server.poll() is not None):
                raise
        time.sleep(_RETRY_S)


def _stop(server: "subprocess.Popen[bytes]", owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        server.send_signal(signal.SIGKILL)
        server.wait()
