"""Tar bytes as a function of content only: plain USTAR, time 0, no owner, mode 0644, nothing but samples inside.

Written here and not with `tarfile`, whose header bytes have changed between Python versions; read back by any tar.
Source of the layout: POSIX.1-1988 ustar interchange format.
"""

import struct
import zlib

from griffon_shards.errors import DataError

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MAX_MEMBER_BYTES = 8**11 - 1  # eleven octal digits
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_MODE, _ZERO8, _ZERO12 = b"0000644\0", b"0000000\0", b"00000000000\0"


def header(name: str, size: int) -> bytes:
    """The 512 bytes in front of a member.

    Raises:
        ValueError: the name is over 100 bytes or not ASCII, or the size does not fit into a ustar header.
    """
    encoded = name.encode("ascii")
    if len(encoded) > 100 or not 0 <= size <= MAX_MEMBER_BYTES:
        raise ValueError(f"no ustar header for member {name!r} of {size} bytes")
    fields = (encoded, _MODE, _ZERO8, _ZERO8, b"%011o\0" % size, _ZERO12)
    rest = (b"0", b"", b"ustar\x0000", b"", b"", _ZERO8, _ZERO8, b"")
    unsigned = _HEADER.pack(*fields, b" " * 8, *rest)
    return _HEADER.pack(*fields, b"%06o\0 " % sum(unsigned), *rest)


def sample_bytes(key: str, image: bytes | None, json: bytes) -> bytes:
    """The members of a sample as they stand in a shard: `KEY.jpg` (if it has a picture), then `KEY.json`."""
    parts: list[bytes] = []
    for extension, data in (("jpg", image), ("json", json)):
        if data is not None:
            parts += (header(f"{key}.{extension}", len(data)), data, bytes(-len(data) % BLOCK))
    return b"".join(parts)


def split_sample(raw: bytes, where: str) -> tuple[str, bytes | None, bytes]:
    """Take `sample_bytes` apart again: key, picture or None, JSON.

    Args:
        raw: the bytes of one whole sample.
        where: shard and place, for the error.

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
