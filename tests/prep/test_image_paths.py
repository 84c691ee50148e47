"""Images: where they are looked for, and what may not be looked at."""

import os
import socket
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image

from griffon_prep.images import read_image, stored_path
from griffon_prep.records import Rejected

from .conftest import Prep


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
    return read_image(str(root), name).data.decode()


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
def test_where_an_image_is_looked_for(root: Path, name: str, expected: str) -> None:
    assert found(root, name) == expected
    assert found(root, str(root / name)) == expected


@pytest.mark.parametrize("name", ["../secret.jpg", "x/../../secret.jpg", "..", "../../etc/passwd", "..\\secret.jpg"])
def test_a_path_that_leaves_the_root(root: Path, name: str) -> None:
    assert reason(lambda: read_image(str(root), name))[0] == "path_outside_root"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/home/other/y/b.jpg", "y/b.jpg"),
        ("/home/other/d.jpg", "d.jpg"),
        ("//server/share/x/a.jpg", "x/a.jpg"),
        ("C:\\data\\y\\b.jpg", "y/b.jpg"),
        ("C:\\d.jpg", "d.jpg"),
        ("C:/data/d.jpg", "d.jpg"),
        ("\\\\server\\share\\y\\b.jpg", "y/b.jpg"),
        ("x\\y\\a.jpg", "x/y/a.jpg"),
        (".\\x\\a.jpg", "x/a.jpg"),
        ("https://example.org/y/b.jpg", "y/b.jpg"),
        ("https://example.org/data/d.jpg?width=640&v=2", "d.jpg"),
        ("https://example.org/文件%20夹/c%20d.jpg", "文件 夹/c d.jpg"),
        ("s3://bucket/train/y/b.jpg", "y/b.jpg"),
        ("file:///mnt/data/x/a.jpg", "x/a.jpg"),
    ],
)
def test_a_path_from_elsewhere_is_looked_for_by_its_last_parts(root: Path, name: str, expected: str) -> None:
    assert found(root, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d.jpg", False),  # all that there is
        ("x/a.jpg", False),
        ("z/x/a.jpg", False),  # by two
        ("z/d.jpg", True),
        ("images/v1/patch8/d.jpg", True),
        ("/home/other/d.jpg", True),
        ("https://example.org/d.jpg", True),
        ("C:\\data\\d.jpg", True),
    ],
)
def test_an_image_found_only_by_its_last_part_is_marked(root: Path, name: str, expected: bool) -> None:
    assert read_image(str(root), name).by_last_part == expected


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["NFC", "NFD"])
def test_accents_may_be_composed_or_not(
    root: Path, stored: Literal["NFC", "NFD"], named: Literal["NFC", "NFD"]
) -> None:
    """Archives packed on macOS have them decomposed, annotations mostly composed."""
    path = root / unicodedata.normalize(stored, "Café/Übung 각.jpg")
    path.parent.mkdir()
    path.write_text("found")
    for name in ("Café/Übung 각.jpg", "/other/Café/Übung 각.jpg", "Übung 각.jpg"):
        assert name != "Übung 각.jpg" or path.rename(root / path.name)
        assert found(root, unicodedata.normalize(named, name)) == "found"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the image path in the record is empty"),
        ("img\\gone.jpg", "img\\gone.jpg: not found, nor with slashes instead of backslashes"),
        ("/etc/passwd", "/etc/passwd: not under the image root, and its file name was not found there either"),
        ("/", "/: not under the image root, and its file name was not found there either"),
        ("a.JPG", "a.JPG: not found, but a.jpg exists; rename the files or the paths in the annotation"),
        ("x/y/a.png", "x/y/a.png: not found, but x/y/a.jpg exists; rename the files or the paths in the annotation"),
        ("y/b", "y/b: not found, but y/b.jpg exists; rename the files or the paths in the annotation"),
    ],
)
def test_what_was_looked_for_without_success_is_reported(root: Path, name: str, message: str) -> None:
    assert reason(lambda: read_image(str(root), name)) == ("picture_not_found", message)


def test_a_nul_in_a_path(root: Path) -> None:
    assert reason(lambda: read_image(str(root), "a\0.jpg"))[0] == "path_outside_root"
    assert "NUL" in reason(lambda: read_image(str(root), "a\0.jpg"))[1]


@pytest.mark.parametrize("name", ["gone.jpg", "x/gone.jpg", "a.jpg/b", "x", "x/y", ".", "n" * 300, "n/" * 3000])
def test_what_does_not_exist(root: Path, name: str) -> None:
    assert reason(lambda: read_image(str(root), name)) == ("picture_not_found", name)


def test_a_folder_of_that_name_is_skipped(root: Path) -> None:
    (root / "z/x/a.jpg").mkdir(parents=True)
    assert found(root, "z/x/a.jpg") == "x/a.jpg"


def test_links(root: Path) -> None:
    (root / "link.jpg").symlink_to(root / "x/a.jpg")
    (root / "data").symlink_to(root.parent)  # a user's own link: images kept elsewhere
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "dangling.jpg").symlink_to("gone.jpg")
    assert found(root, "link.jpg") == "x/a.jpg"
    assert found(root, "data/secret.jpg") == "outside"
    for name in ("loop.jpg", "dangling.jpg"):
        assert reason(partial(read_image, str(root), name))[0] == "picture_not_found"


def test_what_is_not_a_file_does_not_block_the_build(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "empty.jpg").write_bytes(b"")
    with (root / "huge.jpg").open("wb") as file:
        file.truncate((1 << 30) + 1)
    monkeypatch.chdir(root)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    for name, message in {
        "pipe.jpg": "is a pipe or device, not a file",
        "empty.jpg": "the file is empty",
        "huge.jpg": "1,073,741,825 bytes; the limit is 1 GiB",
        "socket.jpg": "is a socket, not a file",
    }.items():
        assert reason(partial(read_image, str(root), name)) == ("picture_unreadable", f"{name}: {message}")


def test_a_file_that_is_not_readable(root: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (root / "a.jpg").chmod(0)
    assert reason(lambda: read_image(str(root), "a.jpg")) == ("picture_unreadable", "a.jpg: permission denied")


def test_a_large_file_is_read_completely(root: Path) -> None:
    data = os.urandom(5_000_001)
    (root / "large.jpg").write_bytes(data)
    assert read_image(str(root), "large.jpg").data == data


def test_images_found_only_by_their_last_part_are_counted_by_source(tmp_path: Path, prep: Prep) -> None:
    for name in ("a.jpg", "b.jpg", "train/c.jpg"):
        (tmp_path / "flat" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), name[-5:-4].encode()[0]).save(tmp_path / "flat" / name)
    record = '{{"image_path": "{}", "height": 8, "width": 8, "expression": "a thing", "bboxes": [[1, 1, 5, 5]]}}\n'
    for tag, names in {
        "REG": ["coco/train/a.jpg", "/mnt/other/b.jpg", "coco/train/c.jpg"],
        "REG_whole": ["a.jpg", "train/c.jpg"],
    }.items():
        (tmp_path / f"{tag}.jsonl").write_text("".join(map(record.format, names)))
    (tmp_path / "m.txt").write_text("REG & REG.jsonl & flat\nREG_whole & REG_whole.jsonl & flat\n")
    given = ("--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--workers", 1)
    for command in (["check"], ["build", "--out", tmp_path / "set"], ["build", "--out", tmp_path / "set"]):
        result = prep(*command, *given)
        assert result.returncode == 0, result.stderr
        lines = [line for line in result.stderr.splitlines() if "found by file name alone" in line]
        if "up to date" not in result.stderr:
            (line,) = lines
            assert "warning: REG: 2 images were found by" in line


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("a.jpg", "a.jpg"),
        ("./coco//train2017/x/../a b.jpg", "coco/train2017/a b.jpg"),
        ("猫/a.jpg", "猫/a.jpg"),
        ("/home/someone/coco/a.jpg", "coco/a.jpg"),
        ("C:\\Users\\someone\\coco\\a.jpg", "coco/a.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        ("https://host/path/VG_100K/1%20b.jpg?size=1", "VG_100K/1 b.jpg"),
        ("/a.jpg", "a.jpg"),
        ("a\ud800.jpg", "a?.jpg"),
    ],
)
def test_a_sample_states_the_path_without_folders_of_a_machine(given: str, stored: str) -> None:
    assert stored_path(given) == stored
