"""Shared memory, through which pictures come from the reading processes: whether there is room, and what to do if not.

Containers often have 64 MB of it. A tensor that finds no room ends the process that writes it, by an error of torch's
or by SIGBUS.
"""

import os
from pathlib import Path

from griffon_shards.support.errors import SettingsError
from griffon_train.data.source_stream import Shows

SHARED = Path("/dev/shm")
"""Where Linux keeps it."""

AHEAD = 2
"""Micro-batches that each reading process has ready or in work."""

_IN_USE = 2  # micro-batches that the rank itself holds: the one in work, and the one that is being fetched
_REMEDY = (
    "give it more (docker run --shm-size 8g; mount -o remount,size=8g /dev/shm), or take fewer --workers or a smaller "
    "--micro-batch; --workers 0 needs none"
)


def needed_bytes(shows: Shows, *, workers: int, micro_batch: int, image_px: int, region_px: int) -> int:
    """What the pictures of one rank's loader take at most.

    Args:
        shows: what is in the sets.
        workers: reading processes.
        micro_batch: samples that come together.
        image_px: side of the pictures.
        region_px: side of the regions.
    """
    of_a_sample = 3 * (shows.pictures * image_px**2 + shows.regions * region_px**2)
    return (AHEAD * workers + _IN_USE) * micro_batch * of_a_sample if workers else 0


def check_shared_memory(needed: int, loaders: int) -> None:
    """See that there is room for the pictures of some loaders on this machine, if it keeps them there at all.

    Args:
        needed: bytes that each needs.
        loaders: how many there are at once.

    Raises:
        SettingsError: there is too little, with both numbers.
    """
    if not SHARED.is_dir():
        return
    room = os.statvfs(SHARED)
    free = room.f_bavail * room.f_frsize
    if needed * loaders > free:
        raise SettingsError(
            f"{SHARED} has {free / 1e6:,.0f} MB free, and the pictures that reading processes have ready take up to "
            f"{needed * loaders / 1e6:,.0f} MB: {_REMEDY}"
        )


def ranks_here() -> int:
    """Ranks on this machine, as torchrun (or DeepSpeed's launcher) says; 1 where there is no launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def no_room() -> str:
    """That it has run full, for messages."""
    return f"no room in {SHARED} for the pictures that reading processes have ready: {_REMEDY}"
