"""Pictures: where they are looked for, and what may not be looked at."""

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from griffon_prep.pictures import read_picture
from griffon_prep.records import Rejected


def reason(function: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Rejected) as caught:
        function()
    return caught.value.reason, caught.value.detail


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that each hold their own path."""
    root = tmp_path / "图片 root"
    for name in ("a.jpg", "x/a.jpg", "x/y/a.jpg", "y/b.jpg", "文件 夹/c d.jpg", "d.jpg", "..e.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name, encoding="utf-8")
    (tmp_path / "secret.jpg").write_text("outside")
    return root


def found(root: Path, name: str) -> str:
    return read_picture(str(root), name).decode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", "a.jpg"),
        ("x/a.jpg", "x/a.jpg"),
        ("x/y/a.jpg", "x/y/a.jpg"),
        ("z/x/a.jpg", "x/a.jpg"),  # the last two parts
        ("images/v1/patch8/y/b.jpg", "y/b.jpg"),
        ("images/v1/patch8/d.jpg", "d.jpg"),  # the last
        ("patch8/a.jpg", "a.jpg"),
        ("z/y/a.jpg", "a.jpg"),
        ("文件 夹/c d.jpg", "文件 夹/c d.jpg"),
        ("./x//./a.jpg", "x/a.jpg"),
        ("..e.jpg", "..e.jpg"),
        ("x/../a.jpg", "a.jpg"),
        ("x/y/../../d.jpg", "d.jpg"),
    ],
)
def test_where_a_picture_is_looked_for(root: Path, name: str, expected: str) -> None:
    assert found(root, name) == expected
    assert found(root, str(root / name)) == expected


@pytest.mark.parametrize("name", ["../secret.jpg", "x/../../secret.jpg", "..", "../../etc/passwd", "/etc/passwd", "/"])
def test_a_path_that_leaves_the_root(root: Path, name: str) -> None:
    assert reason(lambda: read_picture(str(root), name)) == ("path_outside_root", name)
    sibling = str(root) + "2/a.jpg"
    assert reason(lambda: read_picture(str(root), sibling)) == ("path_outside_root", sibling)


def test_a_nul_in_a_path(root: Path) -> None:
    assert reason(lambda: read_picture(str(root), "a\0.jpg"))[0] == "path_outside_root"
    assert "NUL" in reason(lambda: read_picture(str(root), "a\0.jpg"))[1]


@pytest.mark.parametrize("name", ["gone.jpg", "x/gone.jpg", "a.jpg/b", "x", "x/y", ".", "n" * 300, "n/" * 3000])
def test_what_is_not_there(root: Path, name: str) -> None:
    assert reason(lambda: read_picture(str(root), name)) == ("picture_not_found", name)


def test_a_folder_of_that_name_is_passed_over(root: Path) -> None:
    (root / "z/x/a.jpg").mkdir(parents=True)
    assert found(root, "z/x/a.jpg") == "x/a.jpg"


def test_links(root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "x/a.jpg")
    (root / "data").symlink_to(root.parent)  # a user's own link: pictures kept elsewhere
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "dangling.jpg").symlink_to("gone.jpg")
    assert found(root, "link.jpg") == "x/a.jpg"
    assert found(root, "data/secret.jpg") == "outside"
    for name in ("loop.jpg", "dangling.jpg"):
        assert reason(partial(read_picture, str(root), name))[0] == "picture_not_found"


def test_what_is_no_file_does_not_hold_the_build_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "empty.jpg").write_bytes(b"")
    with (root / "huge.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)
    monkeypatch.chdir(root)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    for name in ("pipe.jpg", "empty.jpg", "huge.jpg", "socket.jpg"):
        why, what = reason(partial(read_picture, str(root), name))
        assert why == "picture_unreadable"
        assert what.startswith(f"{name}: ")


def test_a_file_that_may_not_be_read(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (root / "a.jpg").chmod(0)
    assert reason(lambda: read_picture(str(root), "a.jpg")) == ("picture_unreadable", "a.jpg: no permission to read it")


def test_a_large_file_comes_whole(root: Path) -> None:
    data = os.urandom(5_000_001)
    (root / "large.jpg").write_bytes(data)
    assert read_picture(str(root), "large.jpg") == data
