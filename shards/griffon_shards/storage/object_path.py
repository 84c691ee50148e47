"""The URL of an object or of a folder of objects: `s3://`, `gs://` or `az://`."""

import functools
from collections.abc import Iterator
from pathlib import Path

from griffon_shards.storage import client, providers
from griffon_shards.support.errors import SettingsError

PROTOCOLS = providers.PROTOCOLS
"""Protocols of URLs, and the extra that each needs."""


@functools.total_ordering
class ObjectPath:
    """The URL of an object, or of all objects below it. The names of its methods are those of `pathlib.Path`.

    It holds no connection: it can be copied to other processes, each of which makes a client of its own.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text.rstrip("/")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"ObjectPath({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self._text == other._text

    def __lt__(self, other: "ObjectPath") -> bool:
        return self._text < other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self._text}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self._text.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name with its dot, or an empty string."""
        return Path(self.name).suffix

    @property
    def parent(self) -> "ObjectPath":
        """The URL without its last part; that of a bucket is the bucket itself."""
        before = self._text.rpartition("/")[0]
        return self if before.endswith("/") else ObjectPath(before)

    def with_name(self, name: str) -> "ObjectPath":
        """The URL with another last part."""
        return self.parent / name

    def absolute(self) -> "ObjectPath":
        """The URL itself."""
        return self

    def resolve(self) -> "ObjectPath":
        """The URL itself; object stores have no links."""
        return self

    def read_bytes(self) -> bytes:
        """The whole object. Read large ones with `read_range` or `transfer.fetch`.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: the store cannot be used, or still fails after retries.
        """
        return client.read_whole(self._text)

    def read_range(self, start: int, size: int) -> bytes:
        """Bytes [start, start + size) of the object. Raises as `read_bytes`; StorageError also if it is too short."""
        return client.read_range(self._text, start, size)

    def size(self) -> int:
        """The object's size in bytes. Raises as `read_bytes`."""
        return client.size_of(self._text)

    def stamp(self) -> client.Stamp:
        """The object's size, and a text that changes when it is written again. Raises as `read_bytes`."""
        return client.stamp_of(self._text)

    def is_file(self) -> bool:
        """Whether there is such an object. Raises StorageError as `read_bytes`."""
        try:
            client.size_of(self._text)
        except FileNotFoundError:
            return False
        return True

    exists = is_file

    def is_dir(self) -> bool:
        """Whether there are objects below this URL. Raises StorageError as `read_bytes`."""
        return client.has_objects(self._text)

    def is_empty(self) -> bool:
        """Whether nothing is below this URL; an empty object that only marks it as a folder does not count.

        Raises StorageError as `read_bytes`.
        """
        return client.is_empty(self._text)

    def write_bytes(self, data: bytes) -> None:
        """Write an object whole, or replace it. Raises StorageError as `read_bytes`."""
        client.write_whole(self._text, data)

    def create(self, data: bytes) -> bool:
        """Write an object unless there is one; returns whether this call wrote it.

        If the answer to a request is lost, an object with just these bytes counts as written by this call.
        Raises StorageError as `read_bytes`.
        """
        return client.create(self._text, data)

    def upload(self, file: Path) -> None:
        """Write a file on disk as an object. It appears when it is complete. Raises StorageError as `read_bytes`."""
        client.upload(self._text, file)

    def listing(self) -> Iterator[tuple[str, int]]:
        """Yield all objects below this URL in order of their names: name relative to this URL, size in bytes.

        Empty objects that only mark folders, with names that end in a slash, are left out.

        Raises StorageError as `read_bytes`.
        """
        return ((name, size_bytes) for name, (size_bytes, _) in client.list_below(self._text))

    def stamps(self) -> Iterator[tuple[str, client.Stamp]]:
        """Yield all objects as `listing` does, with their stamps; see `stamp`."""
        return client.list_below(self._text)


def object_path(text: str) -> ObjectPath | None:
    """The URL in a text, or None if it is not a URL of an object store.

    Raises:
        SettingsError: the URL has no bucket, or holds a password, a query or empty parts.
    """
    protocol, separator, rest = text.partition("://")
    if not separator or protocol not in PROTOCOLS:
        return None
    bucket, _, key = rest.rstrip("/").partition("/")
    if "@" in bucket:
        raise SettingsError(
            f"{protocol}://...: credentials do not belong into URLs, which are logged; use the environment variables "
            "or the configuration file of your provider"
        )
    if not bucket:
        raise SettingsError(f"{text}: names no bucket; expected {protocol}://BUCKET/FOLDER")
    if "?" in rest or "#" in rest:
        raise SettingsError(f"{text}: queries and fragments (? and #) are not supported in URLs")
    if any(part in ("", ".", "..") for part in key.split("/")[: None if key else 0]):
        raise SettingsError(f"{text}: has an empty part, . or .. between its slashes; write the plain URL")
    return ObjectPath(f"{protocol}://{bucket}" + (f"/{key}" if key else ""))
