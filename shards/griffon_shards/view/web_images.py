"""Images for the browser: as stored, small, and the region of a sample.

Small ones are kept in a cache of bounded size.
"""

import sqlite3
import threading
from io import BytesIO
from pathlib import Path

from PIL import Image

from griffon_shards import images
from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError
from griffon_shards.types import Sample

SIDE_PX = 320
"""Longest side of a thumbnail."""
_MAX_PIXELS = 40_000_000  # decoded at once; 120 MB
_MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""What browsers show. TIFF is sent as PNG."""

WebImage = tuple[bytes, str]
"""An image's bytes and its media type."""


def for_browser(data: bytes) -> WebImage:
    """An image as stored, if browsers show its format.

    Raises:
        ImageError: it is not a supported image, or one that has to be decoded and has too many pixels.
    """
    media_type = _MEDIA_TYPES.get(images.format_of(data))
    if media_type is not None:
        return data, media_type
    return _encoded(_decoded(data), "PNG"), "image/png"


def thumbnail(data: bytes) -> WebImage:
    """An image whose longest side has at most `SIDE_PX`, as JPEG.

    Raises:
        ImageError: it is not a supported image, is damaged, or has too many pixels.
    """
    return _encoded(images.decode_small(data, SIDE_PX, _MAX_PIXELS), "JPEG"), "image/jpeg"


def crop(sample: Sample, variant: int) -> WebImage:
    """The region of a variant, as JPEG.

    Raises:
        DataError: the variant has no region, or the image is damaged or has too many pixels.
    """
    region = sample.renderings[variant].region_xyxy_px if variant < len(sample.renderings) else None
    if region is None or sample.image is None:
        raise DataError(f"{sample.key}: variant {variant} has no region")
    return _encoded(images.cropped(_decoded(sample.image), region), "JPEG"), "image/jpeg"


def _decoded(data: bytes) -> Image.Image:
    header = images.read_header(data)  # not what the sample's JSON says
    if header.width_px * header.height_px > _MAX_PIXELS:
        raise images.ImageError(
            f"{header.width_px}x{header.height_px} pixels, at most {_MAX_PIXELS:,} are decoded for the browser"
        )
    return images.decode(data)


def _encoded(image: Image.Image, form: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **({"quality": 80} if form == "JPEG" else {}))
    return buffer.getvalue()


class Thumbnails:
    """A cache of thumbnails in one SQLite file, for several sets and processes. The oldest make room for new ones."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._bytes = 0

    def of_row(self, frozen: FrozenSet, row: int) -> WebImage:
        """The thumbnail of the sample in a row.

        Raises:
            DataError: the sample is damaged, or has no image that can be shown.
        """
        key = f"{frozen.lock.digest}/{row}"
        stored = self._get(key)
        if stored is not None:
            return stored, "image/jpeg"
        sample = frozen[row]
        if sample.image is None:
            raise DataError(f"{sample.key}: has no image")
        data, media_type = thumbnail(sample.image)
        self._put(key, data)
        return data, media_type

    def _get(self, key: str) -> bytes | None:
        with self._lock:
            try:
                row = self._opened().execute("SELECT data FROM thumbnail WHERE key = ?", (key,)).fetchone()
            except sqlite3.Error:  # the cache only saves time
                return None
            return None if row is None else row[0]

    def _put(self, key: str, data: bytes) -> None:
        with self._lock:
            try:
                connection = self._opened()
                connection.execute("INSERT OR IGNORE INTO thumbnail (key, data) VALUES (?, ?)", (key, data))
                self._bytes += len(data)
                if self._bytes > self._max_bytes:
                    connection.execute(
                        "DELETE FROM thumbnail WHERE id <= (SELECT id FROM thumbnail ORDER BY id LIMIT 1 OFFSET "
                        "(SELECT count(*) / 4 FROM thumbnail))"
                    )
                    self._bytes = self._stored_bytes(connection)
            except sqlite3.Error:
                return

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=1.0, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS thumbnail (id INTEGER PRIMARY KEY, key TEXT UNIQUE, data BLOB)"
            )
            self._bytes = self._stored_bytes(connection)
            self._connection = connection
        return self._connection

    @staticmethod
    def _stored_bytes(connection: sqlite3.Connection) -> int:
        (stored,) = connection.execute("SELECT coalesce(sum(length(data)), 0) FROM thumbnail").fetchone()
        return int(stored)
