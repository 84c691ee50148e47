"""A machine's reading process: `python -m griffon_train.data.read_server`, started by `node_reader.py`.

It serves samples over a Unix socket, one thread per connection, and imports neither torch nor a tokenizer.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.storage import client
from griffon_shards.support import logs
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.processes import end_with_parent
from griffon_train.data.cached_reads import CachedReads
from griffon_train.data.node_reader import CacheSettings, ReadOrder
from griffon_train.data.read_ahead import ReadAhead

_REQUESTS = 32
"""Requests to the object store at once."""


class _Opened(NamedTuple):
    ahead: ReadAhead
    reads: CachedReads | None


class ReadServer:
    """Answers the questions of `NodeReader`."""

    def __init__(self, cache: CacheSettings | None) -> None:
        self._cache = cache
        self._pool = ThreadPoolExecutor(_REQUESTS, "read")
        self._lock = threading.Lock()
        self._orders: dict[int, Future[_Opened]] = {}
        self._users: dict[int, int] = {}
        self._fetched_bytes = self._cached_bytes = 0
        self._answers: Mapping[str, Callable[..., Any]] = {
            "open": self._open,
            "close": self._close,
            "read": self._read,
            "figures": self._figures,
        }

    def serve(self, connection: Connection) -> None:
        """Answer a client until it closes the connection."""
        try:
            while True:
                name, *arguments = connection.recv()
                try:
                    answer = self._answers[name](*arguments)
                except (DataError, SettingsError) as error:
                    answer = error
                except OSError as error:
                    answer = DataError(f"{error.filename}: {error.strerror}")
                connection.send(answer)
        except (EOFError, ConnectionError):
            connection.close()

    def _open(self, number: int, order: ReadOrder) -> None:
        with self._lock:
            first = number not in self._orders
            opened = self._orders.setdefault(number, Future())
            self._users[number] = self._users.get(number, 0) + 1
        if first:
            try:
                opened.set_result(self._opened(order))
            except (DataError, SettingsError, OSError) as error:
                opened.set_exception(error)
        opened.result()

    def _opened(self, order: ReadOrder) -> "_Opened":
        raw = partial(self._raw, order.order.sets)
        if self._cache is None or not order.cached:
            return _Opened(ReadAhead(order, partial(self._pool.submit, raw)), None)
        reads = CachedReads(order, self._cache, self._pool, raw)
        return _Opened(ReadAhead(order, reads.fetch), reads)

    def _raw(self, sets: Sequence[FrozenSet], set_no: int, row: int) -> bytes:
        data = sets[set_no].raw(row)
        with self._lock:
            self._fetched_bytes += len(data)
        return data

    def _close(self, number: int) -> None:
        with self._lock:
            self._users[number] -= 1
            if self._users[number]:
                return
            opened = self._orders.pop(number)
        ahead, reads = opened.result()
        ahead.close()
        if reads is not None:
            reads.close()
            self._cached_bytes += reads.cached_bytes

    def _read(self, number: int, slots: list[tuple[int, int]], last: bool) -> list[bytes]:
        try:
            ahead = self._orders[number].result().ahead
            samples = [ahead.sample(step, slot, last=last) for step, slot in slots]
            return [sample.result() for sample in samples]
        except (KeyError, CancelledError):
            raise DataError("reading has ended") from None

    def _figures(self) -> dict[str, int]:
        with self._lock:
            opened = [order.result().reads for order in self._orders.values() if order.done()]
        cached_bytes = self._cached_bytes + sum(reads.cached_bytes for reads in opened if reads is not None)
        return {"fetched": self._fetched_bytes, "cached": cached_bytes}


def main() -> None:
    """Serve until the process that started this one ends."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(stop, signal.SIG_IGN)  # the ranks decide when to stop
    end_with_parent()
    logs.configure()
    socket, key, folder, size_bytes, urls = (bytes.fromhex(sys.stdin.readline()) for _ in range(5))
    for url in urls.decode().splitlines():
        client.prepare(url)
    cache = CacheSettings(folder=Path(folder.decode()), size_bytes=int(size_bytes)) if folder else None
    server = ReadServer(cache)
    threading.Thread(target=_exit_after_parent, daemon=True).start()
    with Listener(socket.decode(), "AF_UNIX", backlog=256, authkey=key) as listener:
        while True:
            try:
                connection = listener.accept()
            except (EOFError, ConnectionError, AuthenticationError):  # a client was killed, or is none of ours
                continue
            threading.Thread(target=server.serve, args=(connection,), daemon=True).start()


def _exit_after_parent() -> None:
    """End when the pipe from the parent closes: outside of Linux, the system does not end children."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
