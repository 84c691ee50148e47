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


def mounted(kind: str, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", "-t", kind, "-o", "size=2m", "none", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"this user cannot mount a {kind}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def without_direct_writes(tmp_path: Path) -> Iterator[Path]:
    """A file system that refuses to bypass the page cache, as ramfs does."""
    yield from mounted("ramfs", tmp_path / "ramfs")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    yield from mounted("tmpfs", tmp_path / "disk")


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


def test_a_file_system_that_has_only_the_page_cache(without_direct_writes: Path) -> None:
    path, content = without_direct_writes / "file", content_of(BUFFER + 4096 + 5)
    with pytest.raises(OSError, match="Invalid argument"):
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    write(path, content)
    assert path.read_bytes() == content.numpy().tobytes()


def test_nothing_stays_in_the_page_cache(tmp_path: Path) -> None:
    write(tmp_path / "file", content_of(2 * BUFFER))
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):  # which says that the bytes would have to come from the disk
            os.preadv(descriptor, [bytearray(4096)], 0, os.RWF_NOWAIT)
    finally:
        os.close(descriptor)


def test_a_full_disk(small_disk: Path) -> None:
    with pytest.raises(OSError) as raised:
        write(small_disk / "file", content_of(3 * MB))
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("limit", [BUFFER + 4096, BUFFER + 4097], indirect=True)
@pytest.mark.parametrize("size", [2 * BUFFER, 5 * BUFFER, 5 * BUFFER + 1])
def test_a_file_that_may_not_grow(size: int, limit: int, tmp_path: Path) -> None:
    """The limit may cut a write where a direct one cannot end."""
    with pytest.raises(OSError) as raised:
        write(tmp_path / "file", content_of(size))
    assert raised.value.errno == errno.EFBIG
    assert (tmp_path / "file").stat().st_size == limit
