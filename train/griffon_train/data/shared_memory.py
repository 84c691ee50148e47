"""Shared memory, which passes images from worker processes to their rank: check that there is enough of it.

Containers often have only 64 MB. If a tensor does not fit, the process that writes it ends with an error from torch or
with SIGBUS.
"""

import os
from pathlib import Path

from griffon_shards.support.errors import SettingsError
from griffon_train.data.source_stream import Shows

SHARED = Path("/dev/shm")
"""Where Linux mounts shared memory."""

AHEAD = 2
"""Micro-batches that each worker process has prepared or is preparing."""

_IN_USE = 2  # micro-batches that the rank itself holds: the current one and the one being fetched
_REMEDY = (
    "enlarge it (docker run --shm-size 8g; mount -o remount,size=8g /dev/shm), or use fewer --workers or a smaller "
    "--micro-batch; --workers 0 needs none"
)


def needed_bytes(shows: Shows, *, workers: int, micro_batch: int, image_px: int, region_px: int) -> int:
    """Return the shared memory, in bytes, that one rank's loader needs at most.

    Args:
        shows: kinds of content in the samples.
        workers: number of worker processes.
        micro_batch: samples per micro-batch.
        image_px: side of the images.
        region_px: side of the regions.
    """
    of_a_sample = 3 * (shows.images * image_px**2 + shows.regions * region_px**2)
    return (AHEAD * workers + _IN_USE) * micro_batch * of_a_sample if workers else 0


def check_shared_memory(needed: int, loaders: int) -> None:
    """Check that shared memory is large enough for the loaders on this machine; without /dev/shm, do nothing.

    Args:
        needed: bytes that each loader needs.
        loaders: number of loaders that run at the same time.

    Raises:
        SettingsError: it is too small; the message states what is free and what is needed.
    """
    if not SHARED.is_dir():
        return
    room = os.statvfs(SHARED)
    free = room.f_bavail * room.f_frsize
    if needed * loaders > free:
        raise SettingsError(
            f"{SHARED} has {free / 1e6:,.0f} MB free, but images from worker processes take up to "
            f"{needed * loaders / 1e6:,.0f} MB: {_REMEDY}"
        )


def ranks_here() -> int:
    """Return the number of ranks on this machine, as set by torchrun or DeepSpeed's launcher; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def no_room() -> str:
    """Return the error message for full shared memory."""
    return f"{SHARED} is full, so worker processes cannot pass on images: {_REMEDY}"
