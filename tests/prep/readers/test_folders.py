"""Annotations that are folders: the order of their files, what their hash depends on, and builds of them."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.readers.folders import (
    IMAGES,
    TEXTS,
    Names,
    bytes_of_input,
    files_below,
    packed_notes,
    sha256_of_input,
    stamp_of_input,
    write_names,
)
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.resolve import find_sources
from griffon_shards.support.errors import DataError

from ..conftest import Prep
from .folder_files import CAT, voc, voc_object, write_files, yolo

FILES: dict[str, object] = {"b.xml": "<b/>", "a/z.xml": "<a/>", "a/é 1.XML": "<c/>", "图.jpg": None, "a.xml": "<d/>"}


def test_files_are_sorted_by_their_paths(tmp_path: Path) -> None:
    write_files(tmp_path, FILES)
    assert files_below(tmp_path, frozenset({".xml"})) == ["a.xml", "a/z.xml", "a/é 1.XML", "b.xml"]
    assert files_below(tmp_path, TEXTS | IMAGES)[-1] == "图.jpg"


def test_links_to_folders_are_entered_once(tmp_path: Path) -> None:
    write_files(tmp_path / "real", FILES)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path / "set")
    assert len(files_below(tmp_path / "set", frozenset({".xml"}))) == 4


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.xml")).write_bytes(b"")
    with pytest.raises(DataError, match=r"the file name .*udcff.* is not UTF-8; rename the file"):
        files_below(tmp_path, TEXTS)


def test_the_hash_is_that_of_sha256sums_list(tmp_path: Path) -> None:
    write_files(tmp_path, {name: content for name, content in FILES.items() if content is not None})
    listing = subprocess.run(
        "find . -type f | LC_ALL=C sort | sed 's/^..//' | tr '\\n' '\\0' | xargs -0 sha256sum",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        check=True,
    ).stdout
    assert sha256_of_input(tmp_path) == hashlib.sha256(listing).hexdigest()
    assert bytes_of_input(tmp_path) == 16


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "another text": (lambda folder: (folder / "a.xml").write_text("<e/>"), True),
    "a file more": (lambda folder: (folder / "c.xml").write_text("<e/>"), True),
    "a file renamed": (lambda folder: (folder / "b.xml").rename(folder / "c.xml"), True),
    "an image more": (lambda folder: (folder / "x.png").write_bytes(b""), True),
    "another image": (lambda folder: (folder / "图.jpg").write_bytes(b"new"), False),
    "a cache of a trainer": (lambda folder: (folder / "labels.cache").write_bytes(b"new"), False),
    "a hidden file": (lambda folder: (folder / ".a.xml").write_bytes(b"new"), False),
    "another place": (lambda folder: shutil.copytree(folder, folder.parent / "copy"), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_hash(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "set"
    write_files(folder, FILES)
    before, stamp = sha256_of_input(folder), stamp_of_input(folder)
    alter, differs = CHANGES[change]
    alter(folder)
    now = tmp_path / "copy" if change == "another place" else folder
    assert (sha256_of_input(now) != before) == differs
    assert (stamp_of_input(folder) != stamp) == differs


def test_names_by_number(tmp_path: Path) -> None:
    names = [f"{'é' * (i % 5)}/{i}" for i in range(300)]
    write_names(tmp_path / "names.bin", names)
    table = Names(tmp_path / "names.bin")
    assert [table[i] for i in reversed(range(300))] == names[::-1]


def test_a_build_of_a_folder_is_resumed_refused_and_rebuilt_like_that_of_a_file(
    tmp_path: Path, prep: Prep, lock_of: Callable[[Path], dict[str, Any]]
) -> None:
    """The digest depends on the content of the labels and not on the place of the folder."""
    for place in ("one", "other place"):
        data = write_files(
            tmp_path / place, {f"set/{name}": text for name, text in yolo({"a": "0 0.5 0.5 1 1"}).items()}
        )
        write_files(data, {"voc/a.xml": voc(voc_object(CAT, (1, 1, 20, 20))), "voc/a.jpg": None})
        (data / "m.txt").write_text("DET_yolo & set & set\nDET_voc & voc & voc & difficult=drop\n")
        out = tmp_path / f"out of {place}"
        command = ("build", "--manifest", data / "m.txt", "--data-root", data, "--workers", 1)
        built = prep(*command, "--out", out)
        assert built.returncode == 0, built.stderr
    one, other = lock_of(tmp_path / "out of one"), lock_of(tmp_path / "out of other place")
    assert one["digest"] == other["digest"]
    yolo_source, voc_source = one["sources"]
    assert (yolo_source["format"], yolo_source["annotation"]) == ("yolo", "set/data.yaml")
    assert set(yolo_source["companions"]) == {"set/images/train", "set/labels/train"}
    assert (voc_source["annotation"], voc_source["options"]) == ("voc", {"difficult": "drop"})
    assert voc_source["annotation_bytes"] == (data / "voc/a.xml").stat().st_size
    again = prep(*command, "--out", out)
    assert again.returncode == 0 and "up to date" in again.stderr
    (data / "set/labels/train/a.txt").write_text("1 0.5 0.5 1 1")
    refused = prep(*command, "--out", out)
    assert refused.returncode == 1
    assert "source DET_yolo: companions changed" in refused.stderr
    rebuilt = prep(*command, "--out", tmp_path / "new", "--reuse", out)
    assert rebuilt.returncode == 0 and "reused from" in rebuilt.stderr and "DET_voc" in rebuilt.stderr
    assert lock_of(tmp_path / "new")["digest"] != one["digest"]


def test_inputs_of_one_name_outside_the_data_root_are_told_apart(tmp_path: Path) -> None:
    """Otherwise the lock would have the hash of only one of them."""
    for camera in ("east", "west"):
        write_files(tmp_path / camera, {"images/a.jpg": None, "labels/a.txt": "0 0.5 0.5 1 1"})
    parts = f"[{tmp_path}/east/images, {tmp_path}/west/images]"
    write_files(tmp_path / "root", {"data.yaml": f"train: {parts}\nnames: [cat]\n"})
    line = ManifestLine(line_no=1, tag="DET", task="DET", annotation="data.yaml", image_root="..", options={})
    (source,) = find_sources([line], tmp_path / "root", None)
    assert source.file_names == ["data.yaml", "images", "labels", "west/images", "west/labels"]


def test_a_folder_where_a_file_is_expected_is_named(tmp_path: Path, prep: Prep) -> None:
    write_files(
        tmp_path, {"empty/readme.md": "x", "m.txt": "DET & empty & empty\nDET_a & empty & empty & format=coco\n"}
    )
    refused = prep("check", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path)
    assert refused.returncode == 2
    first, second = refused.stderr.splitlines()
    assert "m.txt:1: DET: " in first and "a folder without data.yaml, XML, Parquet or labelme's JSON files" in first
    assert "m.txt:2: DET_a: " in second and "format coco is read from a file; correct the path" in second


def test_compressed_files_of_a_folder_are_noted(tmp_path: Path) -> None:
    """They are not read, which must not pass unseen."""
    for name in ("a.xml.gz", "b.xml", "sub/c.xml.zst", "d.json.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (note,) = packed_notes(tmp_path, frozenset({".xml"}))
    assert note.startswith("2 compressed files are not read, such as a.xml.gz")
    assert packed_notes(tmp_path / "sub", frozenset({".json"})) == ()
