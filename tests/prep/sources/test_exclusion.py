"""Lists of images and keys to leave out."""

import os
from pathlib import Path

import pytest

from griffon_prep.records import Rejected
from griffon_prep.sources.exclusion import Exclusion, read_excluded_keys, read_exclusion_list, unknown_keys
from griffon_shards.image_identity import visual_genome_images
from griffon_shards.support.errors import SettingsError

VISUAL_GENOME = visual_genome_images(b'[{"image_id": 2315, "coco_id": 42}, {"image_id": 7}]', "image_data.json")
SHA256 = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"  # of b"hello world"


def excluded(text: str, path: str, folder: Path, data: bytes = b"") -> bool:
    (folder / "list.txt").write_text(text, encoding="utf-8")
    images = read_exclusion_list.__wrapped__(folder / "list.txt")
    exclusion = Exclusion(lists=(images,), keys=(), image_root="/data/voc/train", visual_genome=VISUAL_GENOME)
    try:
        exclusion.check_paths([path] if path is not None else [])
        exclusion.check_data(path, data)
    except Rejected as rejected:
        assert rejected.reason == "excluded" and rejected.detail.startswith(path) and "list.txt" in rejected.detail
        return True
    return False


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("42", "COCO_val2014_000000000042.jpg"),
        ("000000000042", "val2017/000000000042.jpg"),
        ("coco:42", "VG_100K/2315.jpg"),
        ("COCO_val2014_000000000042.jpg", "000000000042.jpg"),
        ("visual_genome:7", "VG_100K_2/7.jpg"),
        ("visual_genome:2315", "VG_100K_2/2315.jpg"),  # a list that was made without image_data.json
        ("objects365:420917", "patch8/objects365_v1_00420917.jpg"),
        ("猫.png", "a/b/猫.png"),
        ("b/猫.png", "a/b/猫.png"),
        ("voc/train/猫.png", "猫.png"),
        ("b\\猫.png", "a/b/猫.png"),
        ("\ufeff# comment\n\n  猫.png  \r\n", "猫.png"),
        (SHA256.upper(), "x.jpg"),
    ],
)
def test_listed(line: str, path: str, tmp_path: Path) -> None:
    assert excluded(line, path, tmp_path, b"hello world")


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("43", "000000000042.jpg"),
        ("2315", "VG_100K/2315.jpg"),  # a bare number is a COCO id
        ("c/猫.png", "a/b/猫.png"),
        ("atze.png", "katze.png"),
        ("猫.png", "猫.png/x.jpg"),
        ("", "x.jpg"),
        (SHA256, "x.jpg"),
    ],
)
def test_not_listed(line: str, path: str, tmp_path: Path) -> None:
    assert not excluded(line, path, tmp_path, b"something else")


@pytest.mark.parametrize("line", ["some words", "1234567890123", "vg:7", SHA256[:-1], "folder/", ".jpg", "-5", "a.txt"])
def test_a_line_that_names_no_image_is_an_error_with_its_number(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# images\n42\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"list\.txt:3: expected an image's file name, COCO id, "):
        read_exclusion_list(tmp_path / "list.txt")


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(
        'DET_a-000000003\n{"key": "DET_a-000000001", "note": "blurred"}\n\nVG-000000009\n', encoding="utf-8"
    )
    assert read_excluded_keys(path) == {"DET_a": {3: 1, 1: 2}, "VG": {9: 4}}
    assert unknown_keys(path, {"DET_a": 4, "VG": 10}) == ""
    assert unknown_keys(path, {"DET_a": 3, "VG_b": 10}) == (
        f"{path}: 2 keys name no record of this build, such as DET_a-000000003 in line 1"
    )


@pytest.mark.parametrize(
    "line", ["DET_a", "DET_a-3", '{"key": 3}', '{"note": "x"}', '{"key": "DET_a-000000001"', "[1]"]
)
def test_a_line_without_a_key_is_an_error_with_its_number(line: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(f"DET_a-000000003\n{line}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"keys\.txt:2: expected a key such as"):
        read_excluded_keys(tmp_path / "keys.txt")


def test_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.txt: the list cannot be read"):
        read_exclusion_list(tmp_path / "none.txt")


def test_an_image_is_excluded_by_any_of_its_names(tmp_path: Path) -> None:
    """LabelImg's XML may name another file than its own name does."""
    (tmp_path / "list.txt").write_text("42")
    images = read_exclusion_list.__wrapped__(tmp_path / "list.txt")
    exclusion = Exclusion(lists=(images,), keys=(), image_root="/data", visual_genome=None)
    exclusion.check_paths(["x1.jpg"])
    with pytest.raises(Rejected, match=r"coco:42 is in list\.txt"):
        exclusion.check_paths(["x1.jpg", "COCO_val2014_000000000042.jpg"])


def test_the_image_root_may_be_the_folder_of_visual_genome(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("visual_genome:8")
    images = read_exclusion_list.__wrapped__(tmp_path / "list.txt")
    for root, listed in (("/data/VG_100K", True), ("/data/others", False)):
        exclusion = Exclusion(lists=(images,), keys=(), image_root=root, visual_genome=None)
        if listed:
            with pytest.raises(Rejected, match=r"visual_genome:8 is in list\.txt"):
                exclusion.check_paths(["8.jpg"])
        else:
            exclusion.check_paths(["8.jpg"])


def test_a_list_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(SettingsError, match="the list is a folder, pipe or device; give a file"):
        read_exclusion_list.__wrapped__(tmp_path / "list.txt")
