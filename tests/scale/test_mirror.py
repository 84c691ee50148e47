"""Copies of annotations that change in their bucket: never half of one and half of another."""

from pathlib import Path

import pytest

from griffon_prep.sources.mirror import Mirror
from griffon_shards.storage import ObjectPath, client
from griffon_shards.support.errors import DataError

s3fs = pytest.importorskip("s3fs")
pytestmark = pytest.mark.scale


def test_files_and_folders_take_each_others_place_in_the_bucket(bucket: str, tmp_path: Path) -> None:
    url = ObjectPath(f"{bucket}/notes")
    store = s3fs.S3FileSystem()

    def fetched() -> dict[str, bytes]:
        with Mirror(tmp_path / "inputs") as mirror:
            folder = mirror.path_of(url)
            mirror.fetch(folder)
        files = [path for path in (folder, *folder.rglob("*")) if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    (url / "a.txt").write_bytes(b"file")
    assert fetched() == {"a.txt": b"file"}
    (url / "a.txt" / "b.txt").write_bytes(b"below")
    with pytest.raises(DataError, match=r"/notes/a\.txt: is an object, and .*/notes/a\.txt/b\.txt is below it"):
        fetched()
    store.rm_file(str(url / "a.txt"))
    assert fetched() == {"a.txt/b.txt": b"below"}
    store.rm_file(str(url / "a.txt" / "b.txt"))
    (url / "a.txt").write_bytes(b"file")
    assert fetched() == {"a.txt": b"file"}
    store.rm_file(str(url / "a.txt"))
    url.write_bytes(b"one")
    assert fetched() == {".": b"one"}
    store.rm_file(str(url))
    (url / "a.txt").write_bytes(b"file")
    assert fetched() == {"a.txt": b"file"}


def test_an_annotation_that_is_written_while_it_is_fetched_is_not_mixed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ObjectPath(f"{bucket}/a.jsonl")
    before, after = b"a" * (9 << 20), b"b" * (9 << 20)
    url.write_bytes(before)
    read_range = client.read_range

    def read_and_write(text: str, start: int, size: int) -> bytes:
        data = read_range(text, start, size)
        if start == 0:
            url.write_bytes(after)
        return data

    with Mirror(tmp_path) as mirror:
        path = mirror.path_of(url)
        with monkeypatch.context() as patched, pytest.raises(DataError, match=r"a\.jsonl: was written again while"):
            patched.setattr(client, "read_range", read_and_write)
            mirror.fetch(path)
    with Mirror(tmp_path) as mirror:
        mirror.fetch(path)
    assert path.read_bytes() == after
