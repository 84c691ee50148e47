"""Files and folders appear only when complete; a failed write leaves what was there."""

import hashlib
from pathlib import Path

import pytest

from griffon_shards.support.errors import SettingsError
from griffon_shards.support.files import remove_temporaries, sha256_of, whole_file, whole_folder, write_whole


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new.bin"
    with whole_file(path) as file:
        file.write(b"first half, ")
        file.flush()
        assert not path.exists()
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert list(tmp_path.iterdir()) == [path]


def test_until_then_the_old_set_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.bin"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new and longer")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new and longer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_more(tmp_path: Path, error: type[BaseException]) -> None:
    old, new = tmp_path / "old.bin", tmp_path / "new.bin"
    old.write_bytes(b"old")
    for path in (old, new):
        with pytest.raises(error), whole_file(path) as file:
            file.write(b"half")
            raise error
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    final, synced = tmp_path / "parent" / "model", []
    with whole_folder(final, lambda: synced.append(1)) as folder:
        (folder / "a.bin").write_bytes(b"a")
        (folder / "b.bin").write_bytes(b"b")
        assert not final.exists()
    assert sorted(path.name for path in final.iterdir()) == ["a.bin", "b.bin"]
    assert len(synced) == 2
    assert list(final.parent.iterdir()) == [final]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_folder_that_fails_is_removed(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), whole_folder(tmp_path / "model") as folder:
        (folder / "a.bin").write_bytes(b"a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old.bin").write_bytes(b"old")
    with pytest.raises(SettingsError, match="not empty; nothing is overwritten"), whole_folder(tmp_path / "model"):
        pytest.fail("the folder was opened")
    assert [path.name for path in tmp_path.rglob("*.bin")] == ["old.bin"]


def test_files_of_killed_writers_are_deleted_and_no_others(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"a")
    (tmp_path / "folder").mkdir()
    write_whole(tmp_path / "folder/b.bin", b"b")
    unfinished = whole_file(tmp_path / "folder/c.bin")
    file = unfinished.__enter__()  # and its process is killed
    file.write(b"half")
    file.close()
    assert len(list((tmp_path / "folder").iterdir())) == 2
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.bin", "b.bin", "folder"]


def test_sha256_of_a_file_larger_than_a_buffer(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "large").write_bytes(data)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(data).hexdigest()
