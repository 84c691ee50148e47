"""A folder's lock: who holds it, and what is said where the storage has none."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.support.folder_lock import lock_folder

HOLDER = "import fcntl, sys; f = open(sys.argv[1], 'a+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(); input()"


def test_another_process_that_holds_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock_folder(path, whose="OUT: is in use", instead="wait").close()
    assert path.read_text().startswith(f"process {os.getpid()} on ")
    for content in (path.read_text(), ""):  # empty: it has the lock and has not written yet
        path.write_text(content)
        with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as p:
            assert p.stdout is not None
            p.stdout.readline()
            with pytest.raises(SettingsError) as refused:
                lock_folder(path, whose="OUT: is in use", instead="wait")
            p.communicate(b"\n")
        assert str(refused.value) == f"OUT: is in use ({content or 'an unknown process'}); wait"
    lock_folder(path, whose="OUT: is in use", instead="wait").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
def test_storage_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No file system at hand lacks them, so the system's answer is put in its place."""

    def without_locks(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", without_locks)
    with pytest.raises(DataError) as refused:
        lock_folder(tmp_path / "lock", whose="OUT: is in use", instead="wait")
    assert str(refused.value).startswith(f"{tmp_path / 'lock'}: cannot be locked ({os.strerror(number)})")
    assert "in use" not in str(refused.value)
    assert "other storage" in str(refused.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        lock_folder(tmp_path / "no folder" / "lock", whose="OUT: is in use", instead="wait")
