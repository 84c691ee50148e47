"""The reading process that the ranks of a machine share, if their sets are in an object store."""

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.storage import ObjectPath
from griffon_shards.support.errors import DataError
from griffon_shards.support.tables import size
from griffon_train.data.node_reader import CacheSettings, NodeReader, start_server
from griffon_train.distributed.process_group import ProcessGroup

_log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def shared_reader(sets: Sequence[FrozenSet], cache: CacheSettings | None, ranks: ProcessGroup) -> NodeReader | None:
    """Start this machine's reading process on the first of its ranks. Every rank calls this.

    Args:
        sets: all sets that the run reads.
        cache: where to keep what was read.
        ranks: process group.

    Returns:
        The reader, or None if no set is in an object store and there is no cache.
    """
    if cache is None and not any(isinstance(frozen.root, ObjectPath) for frozen in sets):
        return None
    machines = ranks.gathered(_machine())
    here = tuple(rank for rank, machine in enumerate(machines) if machine == machines[ranks.rank])
    address, server = start_server(sets, cache) if ranks.rank == here[0] else (None, None)
    return NodeReader(ranks.gathered(address)[here[0]], here, server)


def log_reads(reader: NodeReader, ranks: ProcessGroup) -> None:
    """Log how much the machine of rank 0 has read."""
    if ranks.first:
        with suppress(DataError):  # whoever needed the process has reported its end
            read = reader.figures()
            _log.info(
                f"this machine read {size(read['fetched'])} from storage and {size(read['cached'])} from its cache"
            )


def _machine() -> str:
    """Tells machines apart, also those that have the same name."""
    return socket.gethostname() + (_BOOT_ID.read_text() if _BOOT_ID.exists() else "")
