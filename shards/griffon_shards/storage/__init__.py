"""Locations of sets and data: a path on disk, or a URL in an object store.

Five operations are used of an object store: read an object whole, read a range of it, write an object whole, list
objects, and get an object's size. An object has its final name only once it is complete, and is never modified.
"""

from pathlib import Path
from typing import TypeAlias

from griffon_shards.storage.object_path import ObjectPath, object_path
from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import write_whole

__all__ = ["Location", "ObjectPath", "as_location", "object_path", "write_location"]

Location: TypeAlias = Path | ObjectPath


def as_location(text: str) -> Location:
    """The location that a command line or a manifest names.

    Raises:
        SettingsError: a URL of an unknown kind, or one that is not complete.
    """
    url = object_path(text)
    if url is not None:
        return url
    if "://" in text:
        raise SettingsError(f"{text}: unknown kind of URL; give a path, or a URL such as s3://bucket/folder")
    return Path(text)


def write_location(location: Location, data: bytes) -> None:
    """Write a file or an object whole, or replace it.

    Raises:
        StorageError: the object store cannot be used.
        OSError: the disk fails.
    """
    if isinstance(location, ObjectPath):
        location.write_bytes(data)
    else:
        write_whole(location, data)
