"""The shard format: read, check and inspect frozen sets."""

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.stream import shard_urls, stream
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Origin, Rendering, Sample, Turn
from griffon_shards.verify import verify_set

__all__ = [
    "DataError",
    "FrozenSet",
    "Origin",
    "Rendering",
    "Sample",
    "SettingsError",
    "Turn",
    "open_set",
    "shard_urls",
    "stream",
    "verify_set",
]
