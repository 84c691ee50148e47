"""Folders of this machine, copied into buckets by the storage layer alone."""

from pathlib import Path

from griffon_shards.storage import ObjectPath, as_location


def upload(folder: Path, url: str) -> ObjectPath:
    """Copy the files of a folder to a URL."""
    target = as_location(url)
    assert isinstance(target, ObjectPath)
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return target
