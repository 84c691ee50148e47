"""Tar bytes that depend on content only: plain USTAR, time 0, no owner, mode 0644, no members but samples.

`tarfile` is not used because its header bytes have changed between Python versions. Any tar reads the result.
Source of the layout: POSIX.1-1988 ustar interchange format.
"""

import zlib

from griffon_shards.support.errors import DataError

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MAX_MEMBER_BYTES = 8**11 - 1  # eleven octal digits
_MODE, _ZERO8, _ZERO12 = b"0000644\0", b"0000000\0", b"00000000000\0"
# The fields that are the same in every header, and their part of its checksum.
_OWNER = _MODE + _ZERO8 + _ZERO8
_TAIL = (b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + _ZERO8 + _ZERO8).ljust(356, b"\0")
_FIXED_SUM = sum(_OWNER) + sum(_ZERO12) + sum(b" " * 8) + sum(_TAIL)


def header(name: str, size: int) -> bytes:
    """The 512 bytes in front of a member.

    Raises:
        ValueError: the name is over 100 bytes or not ASCII, or the size does not fit into a ustar header.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"no ustar header for member {name!r} of {size} bytes")
    octal_size = b"%011o\0" % size
    checksum = _FIXED_SUM + sum(encoded) + sum(octal_size)
    return b"%s%s%s%s%06o\0 %s" % (encoded.ljust(100, b"\0"), _OWNER, octal_size, _ZERO12, checksum, _TAIL)


def sample_bytes(key: str, image: bytes | None, json: bytes) -> bytes:
    """The members of a sample as stored in a shard: `KEY.jpg` (if it has an image), then `KEY.json`."""
    parts: list[bytes] = []
    for extension, data in (("jpg", image), ("json", json)):
        if data is not None:
            parts += (header(f"{key}.{extension}", len(data)), data, bytes(-len(data) % BLOCK))
    return b"".join(parts)


def split_sample(raw: bytes, where: str) -> tuple[str, bytes | None, bytes]:
    """The inverse of `sample_bytes`: key, image or None, JSON.

    Args:
        raw: the bytes of one complete sample.
        where: shard and key, for the error.

    Raises:
        DataError: the bytes are not exactly those that `sample_bytes` writes.
    """
    members: dict[str, bytes] = {}
    position, key = 0, ""
    while position < len(raw):
        name = raw[position : position + 100].rstrip(b"\0").decode("ascii", "replace")
        digits = raw[position + 124 : position + 135]
        size = int(digits, 8) if digits.isdigit() and b"8" not in digits and b"9" not in digits else -1
        key, _, extension = name.rpartition(".")
        members[extension] = raw[position + BLOCK : position + BLOCK + max(size, 0)]
        if size < 0:
            break
        position += BLOCK + size + (-size % BLOCK)
    json = members.get("json", b"")
    try:
        same = sample_bytes(key, members.get("jpg"), json) == raw
    except ValueError:
        same = False
    if not same:
        raise DataError(f"{where}: the tar members of this sample are damaged")
    return key, members.get("jpg"), json


def crc32(raw: bytes) -> int:
    """The checksum that `index.npy` holds for a sample: CRC-32 (zlib) of `sample_bytes`."""
    return zlib.crc32(raw)
