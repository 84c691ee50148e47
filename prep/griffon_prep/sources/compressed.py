"""Reading gzip and zstd annotations. Compression is detected from the content: downloads lose and gain suffixes."""

import gzip
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from griffon_prep.readers.foreign import LOOK_AT_BYTES, foreign_kind
from griffon_prep.readers.sniff import PARQUET
from griffon_shards.support.errors import DataError
from griffon_shards.support.files import whole_file

SUFFIXES = ("", ".gz", ".zst")
"""Suffixes that may follow the name of an annotation."""

_WHITESPACE = b" \t\r\n\xef\xbb\xbf"
_GZIP = re.compile(rb"\x1f\x8b")
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame, or a skippable frame


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open an annotation for reading from its start, decompressed on the fly.

    Raises:
        DataError: the file is damaged.
    """
    with _named_errors(path), path.open("rb") as file:
        start = _peek(file)
        if _GZIP.match(start):
            with gzip.open(file) as plain:
                yield cast(BinaryIO, plain)
        elif _ZSTD.match(start):
            yield cast(BinaryIO, BufferedReader(_Pieces(_zstd_pieces(file))))
        else:
            yield file


def start_of_data(path: Path, *, may_be_parquet: bool = False) -> bytes:
    """Return the first few hundred bytes of an annotation, decompressed.

    Args:
        path: the annotation.
        may_be_parquet: it may be a Parquet file.

    Raises:
        DataError: the file is empty, or obviously not an annotation.
    """
    with opened(path) as file:
        start = file.read(LOOK_AT_BYTES)
    if not start.strip(_WHITESPACE) and len(start) < LOOK_AT_BYTES:
        raise DataError(f"{path}: has no records, the file is empty; download it again")
    if may_be_parquet and start.startswith(PARQUET):
        return start
    if kind := foreign_kind(start):
        raise DataError(f"{path}: is {kind}")
    if path.suffix in SUFFIXES[1:] and not (is_packed(path) or _may_be_plain(start)):
        raise DataError(f"{path}: damaged or truncated, not compressed as its name says; download it again")
    return start


def _may_be_plain(start: bytes) -> bool:
    """Whether the file may have been decompressed without being renamed."""
    return start.lstrip(_WHITESPACE).startswith((b"[", b"{", b"\x80"))


def unpacked_name(path: Path) -> str:
    """The name of an annotation without its compression suffix."""
    return path.stem if path.suffix in SUFFIXES else path.name


def is_packed(path: Path) -> bool:
    """Whether an annotation is compressed, so that it must be decompressed for random access."""
    with path.open("rb") as file:
        start = _peek(file)
    return bool(_GZIP.match(start) or _ZSTD.match(start))


def _peek(file: BinaryIO) -> bytes:
    start = file.read(4)
    file.seek(0)
    return start


def unpack(path: Path, target: Path) -> None:
    """Decompress an annotation into a file.

    Raises:
        DataError: the annotation is damaged or truncated.
        OSError: the storage fails or is full.
    """
    with _named_errors(path), path.open("rb") as packed, whole_file(target) as out:
        if _GZIP.match(_peek(packed)):
            with gzip.open(packed) as plain:
                shutil.copyfileobj(plain, out, 1 << 20)
        else:
            out.writelines(_zstd_pieces(packed))


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise DataError(f"{path}: damaged or truncated, cannot be decompressed ({error}); download it again") from None


def _zstd_pieces(packed: BinaryIO) -> Iterator[bytes]:
    """Decompress frame by frame, because zstandard's own streams treat a truncated file as complete."""
    decompressor = zstandard.ZstdDecompressor()
    frame = None
    while piece := packed.read(1 << 16):
        while piece:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(piece)
            piece = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the last frame is incomplete")


class _Pieces(RawIOBase):
    """A readable file made of an iterator of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        view = memoryview(buffer)
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
