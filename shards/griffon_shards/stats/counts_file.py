"""The counts of a source's samples as bytes, so that a build need not count them again.

The first eight bytes are the CRC-32 of all others, in hexadecimal, as such files are written without waiting for the
disk. Then come a line of JSON, the fingerprints of the images, and their record numbers.
"""

import zlib
from collections import Counter
from typing import Any

import numpy as np
import orjson

from griffon_shards.stats.counts import FINGERPRINT_BYTES, SourceCounts
from griffon_shards.stats.tally import Tally

_VERSION = 1  # raised when something else is counted
_HEAD_BYTES = 8
_RECORD_BYTES = 4


def encode_counts(counts: SourceCounts, counted: str) -> bytes:
    """The counts as bytes.

    Args:
        counts: the counts.
        counted: identifies what was counted: a hash of shards.
    """
    counts.settle()
    fields: dict[str, Any] = {
        "version": _VERSION,
        "counted": counted,
        "samples": counts.samples,
        "tallies": {
            name: [tally.count, tally.total, tally.least, tally.most, list(tally.counters.items())]
            for name, tally in counts.tallies.items()
        },
        "formats": counts.formats,
        "box_sizes": counts.box_sizes,
        "flat_boxes": counts.flat_boxes,
        "heat": counts.heat,
        "category_boxes": counts.category_boxes,
        "category_samples": counts.category_samples,
    }
    records = np.array(counts.image_records, "<u4").tobytes()
    body = orjson.dumps(fields) + b"\n" + bytes(counts.image_fingerprints) + records
    return b"%08x" % zlib.crc32(body) + body


def decode_counts(data: bytes, counted: str) -> SourceCounts | None:
    """The counts, or None if the bytes are damaged, or are counts of something else or of another version."""
    body = memoryview(data)[_HEAD_BYTES:]
    if data[:_HEAD_BYTES] != b"%08x" % zlib.crc32(body):
        return None
    head, images = data[_HEAD_BYTES:].split(b"\n", 1)
    fields = orjson.loads(head)
    if (fields["version"], fields["counted"]) != (_VERSION, counted):
        return None
    counts = SourceCounts()
    counts.samples = fields["samples"]
    for name, (count, total, least, most, counters) in fields["tallies"].items():
        counts.tallies[name] = tally = Tally()
        tally.count, tally.total, tally.least, tally.most = count, total, least, most
        tally.counters.update(dict(counters))
    counts.formats = Counter(fields["formats"])
    counts.box_sizes = Counter(fields["box_sizes"])
    counts.flat_boxes = fields["flat_boxes"]
    counts.heat = fields["heat"]
    counts.category_boxes = Counter(fields["category_boxes"])
    counts.category_samples = Counter(fields["category_samples"])
    number = len(images) // (FINGERPRINT_BYTES + _RECORD_BYTES)
    counts.image_fingerprints += images[: number * FINGERPRINT_BYTES]
    counts.image_records.extend(np.frombuffer(images, "<u4", offset=number * FINGERPRINT_BYTES).tolist())
    return counts
