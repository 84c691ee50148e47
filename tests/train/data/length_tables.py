"""Tables of lengths: what a test needs to make one and to read all of it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import orjson
from numpy.typing import NDArray

from griffon_shards.frozen_set import FrozenSet
from griffon_train.data.lengths import Lengths

IMAGE = 1369
CHAT = "gemma_instruct"


class ThisProcess:
    """Counts in this process, for the sake of time: importing transformers in another takes seconds."""

    run = staticmethod(map)


@contextmanager
def in_this_process(_workers: int) -> Iterator[ThisProcess]:
    yield ThisProcess()


def of_all_rows(lengths: Lengths, frozen: FrozenSet) -> NDArray[np.int64]:
    """Shape [rows, variants]."""
    rows, variants = np.indices((len(frozen), int(frozen.lock.render["variants"])))
    return lengths.of(0, rows.reshape(-1), variants.reshape(-1)).reshape(rows.shape)


def tables_bytes(frozen: FrozenSet, **changes: object) -> bytes:
    """A table in which row i has i tokens, made as the format says."""
    raw = np.arange(len(frozen), dtype="<u4").tobytes()
    head = {
        "magic": "griffon lengths 1",
        "set": frozen.lock.digest,
        "chat": CHAT,
        "tokenizer": "0" * 64,
        "shape": [len(frozen), 1],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    return orjson.dumps({**head, **changes}) + b"\n" + raw
