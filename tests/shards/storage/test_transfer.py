"""Copies of objects on disk: whole, hashed, never outside of their folder, and shared by processes."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from griffon_shards.storage.node_cache import local_copy
from griffon_shards.storage.reading import open_location, sha256_at, sizes_below
from griffon_shards.storage.transfer import fetch, fetch_folder
from griffon_shards.support.errors import DataError

from .folder_objects import FolderObject, reads_of

LARGE = os.urandom(20 << 20)


@pytest.fixture
def bucket(tmp_path: Path) -> FolderObject:
    """A bucket with two objects."""
    folder = tmp_path / "bucket"
    (folder / "有 space").mkdir(parents=True)
    (folder / "large").write_bytes(LARGE)
    (folder / "有 space" / "small").write_bytes(b"small")
    return FolderObject("s3://bucket", folder)


def test_a_copy_is_whole_and_hashed(bucket: FolderObject, tmp_path: Path) -> None:
    pieces: list[int] = []
    assert fetch(bucket / "large", tmp_path / "copy", moved=pieces.append) == hashlib.sha256(LARGE).hexdigest()
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert sum(pieces) == len(LARGE)
    assert len(pieces) > 1


def test_an_object_with_another_hash_leaves_no_file(bucket: FolderObject, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(DataError, match=r"s3://bucket/large: damaged, its SHA-256 is .*, expected 0000"):
        fetch(bucket / "large", target / "copy", sha256="0000")
    assert not list(target.iterdir())


def test_a_folder_keeps_what_is_there_with_its_size(bucket: FolderObject, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "large").write_bytes(bytes(len(LARGE)))
    fetch_folder(bucket, target)
    assert {read.split()[0] for read in reads_of(bucket.folder)} == {"small"}
    (target / "large").write_bytes(b"cut")
    fetch_folder(bucket, target)
    assert (target / "large").read_bytes() == LARGE
    assert (target / "有 space" / "small").read_bytes() == b"small"


def test_a_folder_without_what_is_not_wanted(bucket: FolderObject, tmp_path: Path) -> None:
    fetch_folder(bucket, tmp_path / "out", keep=lambda name: name != "large")
    assert sizes_below(tmp_path / "out") == {"有 space/small": 5}


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a//evil", "./evil", ""])
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    class Evil(FolderObject):
        def listing(self) -> Iterator[tuple[str, int]]:
            yield name, 1

    (tmp_path / "bucket").mkdir()
    with pytest.raises(DataError, match="cannot be copied to a file of this name; rename or delete it"):
        fetch_folder(Evil("s3://bucket", tmp_path / "bucket"), tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("*evil*"))


def test_reading_an_object_from_its_beginning(bucket: FolderObject) -> None:
    with open_location(bucket / "large") as file:
        assert file.read(100) == LARGE[:100]
        assert file.read(12 << 20) == LARGE[100 : 100 + (12 << 20)]
        assert file.read() == LARGE[100 + (12 << 20) :]
        assert file.read(1) == b""
    assert sha256_at(bucket / "large") == hashlib.sha256(LARGE).hexdigest()


def test_sizes_below_a_folder_with_links(tmp_path: Path) -> None:
    (tmp_path / "set" / "b").mkdir(parents=True)
    (tmp_path / "set" / "b" / "x").write_bytes(b"12")
    (tmp_path / "set" / "a").write_bytes(b"1")
    (tmp_path / "set" / "b" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "y").write_bytes(b"123")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(sizes_below(tmp_path / "set").items()) == [("a", 1), ("b/x", 2), ("linked/y", 3)]
    assert sizes_below(tmp_path / "nothing") == {}


def _copy_of(job: tuple[FolderObject, str, Path]) -> bytes:
    source, sha256, cache = job
    return local_copy(source, sha256, cache).read_bytes()


def test_processes_and_threads_share_one_copy(bucket: FolderObject, tmp_path: Path) -> None:
    job = (bucket / "large", hashlib.sha256(LARGE).hexdigest(), tmp_path / "cache")
    with ProcessPoolExecutor(3, mp_context=get_context("fork")) as pool:
        assert all(data == LARGE for data in pool.map(_copy_of, [job] * 6))
    assert len(reads_of(bucket.folder)) == 3  # the ranges of one fetch
    with ThreadPoolExecutor(4) as threads:
        assert all(data == LARGE for data in threads.map(_copy_of, [job] * 8))
    assert len(reads_of(bucket.folder)) == 3


def test_threads_that_fetch_the_same_object_do_not_disturb_each_other(bucket: FolderObject, tmp_path: Path) -> None:
    job = (bucket / "large", hashlib.sha256(LARGE).hexdigest(), tmp_path / "cache")
    with ThreadPoolExecutor(4) as threads:
        assert all(data == LARGE for data in threads.map(_copy_of, [job] * 4))


def test_a_damaged_object_is_not_shared(bucket: FolderObject, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="damaged"):
        local_copy(bucket / "large", "0" * 64, tmp_path / "cache")
    assert not (tmp_path / "cache" / "objects" / ("0" * 64)).exists()
