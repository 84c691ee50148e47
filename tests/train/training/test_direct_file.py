"""Files that are written past the page cache, and the ways in which that can be refused."""

import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from griffon_train.training.direct_file import DirectFile

MB = 1 << 20
BUFFER = 16 * MB


def content_of(size: int) -> torch.Tensor:
    return torch.arange(size // 8 + 1).view(torch.uint8)[:size]


def write(path: Path, *pieces: torch.Tensor) -> None:
    file = DirectFile(path)
    try:
        for piece in pieces:
            file.write(piece, lambda: None)
        file.finish()
    finally:
        file.close()


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system in memory, of 2 MiB if it is a tmpfs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", request.param, "-o", "size=2m", "none", folder], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def limit(request: pytest.FixtureRequest) -> Iterator[int]:
    """No file may grow beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.param, before[1]))
    yield request.param
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


SIZES = [0, 1, 4096, 4097, BUFFER - 1, BUFFER, BUFFER + 512, 3 * BUFFER, 3 * BUFFER + 5]


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_number(size: int, tmp_path: Path) -> None:
    content = content_of(size)
    write(tmp_path / "file", content[:7], content[7 : size // 2], content[max(7, size // 2) :])
    assert (tmp_path / "file").read_bytes() == content.numpy().tobytes()


@pytest.mark.parametrize("disk", ["ramfs"], indirect=True)
def test_a_file_system_that_has_only_the_page_cache(disk: Path) -> None:
    path, content = disk / "file", content_of(BUFFER + 4096 + 5)
    with pytest.raises(OSError, match="Invalid argument"):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    write(path, content)
    assert path.read_bytes() == content.numpy().tobytes()


def is_cached(path: Path) -> bool:
    """Whether the first bytes can be read without the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
    except OSError as error:
        return error.errno != errno.EAGAIN  # a tmpfs knows no such reads
    finally:
        os.close(descriptor)


def test_nothing_stays_in_the_page_cache(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with other.open("wb", buffering=0) as file:
        file.write(bytes(4096))
        os.fsync(file.fileno())
        assert is_cached(other)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if is_cached(other):
        pytest.skip("temporary files are not on a disk")
    write(tmp_path / "file", content_of(2 * BUFFER))
    assert not is_cached(tmp_path / "file")


@pytest.mark.parametrize("disk", ["tmpfs"], indirect=True)
def test_a_full_disk(disk: Path) -> None:
    with pytest.raises(OSError) as raised:
        write(disk / "file", content_of(3 * MB))
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("limit", [BUFFER + 4096, BUFFER + 4097], indirect=True)
@pytest.mark.parametrize("size", [2 * BUFFER, 5 * BUFFER + 1])
def test_a_file_that_may_not_grow(size: int, limit: int, tmp_path: Path) -> None:
    """The limit may cut a write where a direct one cannot end."""
    with pytest.raises(OSError) as raised:
        write(tmp_path / "file", content_of(size))
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "file").stat().st_size == limit
