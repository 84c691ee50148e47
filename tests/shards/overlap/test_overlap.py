"""`griffon-shards overlap`: the command, on folders, sets and lists."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from griffon_shards.image_list import read_image_list
from griffon_shards.lock import FIRST_WITH_IMAGE_PATHS, read_lock, write_lock
from griffon_shards.support.files import sha256_of
from griffon_shards.types import Origin, Sample

Cli = Callable[..., subprocess.CompletedProcess[str]]
MADE_NOW = {"boxes": "text", "render_version": FIRST_WITH_IMAGE_PATHS}


@pytest.fixture
def overlap(shards_cli: Cli) -> Cli:
    return lambda *arguments: shards_cli("overlap", "--workers", 1, *arguments)


def pairs(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)["pairs"]
    return found


def test_every_key_finds_its_images(overlap: Cli, folders: tuple[Path, Path]) -> None:
    train, evaluation = folders
    result = overlap(train, "--eval", evaluation)
    head, row, examined, example = result.stdout.splitlines()
    assert head.split("  ") == [
        "training set",
        "evaluation set",
        "identity",
        "sha256",
        "perceptual",
        "any key",
        "of the latter",
    ]
    # Image 1 has only the name; image 2 only the look; image 0 bytes and look; image 3 everything.
    assert row.split() == ["训练", "train", "val2017", "2", "2", "3", "4", "4", "of", "10"]
    assert examined == "8 images examined"
    assert example == "by look alone 1 of 训练 train, such as deep/small.jpg = 000000000002.jpg"
    (pair,) = pairs(overlap(train, "--eval", evaluation, "--json"))
    assert pair.pop("examples")[0] == ["deep/small.jpg", "000000000002.jpg"]
    assert pair == {
        **{"train": train.name, "eval": "val2017", "identity": 2, "sha256": 2, "perceptual": 3},
        **{"any": 4, "perceptual_alone": 1, "of_eval": 4},
    }


def test_the_number_of_processes_changes_nothing(overlap: Cli, shards_cli: Cli, folders: tuple[Path, Path]) -> None:
    one = overlap(folders[0], "--eval", folders[1], "--json")
    assert one.stdout == shards_cli("overlap", *folders[:1], "--eval", folders[1], "--json", "--workers", 2).stdout


def test_the_list_names_every_image_in_common(overlap: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    train, evaluation = folders
    result = overlap(train, "--eval", evaluation, "--out", tmp_path / "list.txt")
    assert result.stdout.endswith(f"wrote 6 lines to {tmp_path / 'list.txt'}\n")
    lines = (tmp_path / "list.txt").read_text().splitlines()
    names = ("deep/er/renamed.JPG", "COCO_val2014_000000000001.jpg", "deep/small.jpg", "000000000003.jpg")
    hashes = [sha256_of(train / name) for name in names]
    assert lines == ["# griffon-shards overlap: images that stand in val2017", *sorted([*hashes, "coco:1", "coco:3"])]
    assert len(list(read_image_list(tmp_path / "list.txt"))) == 6


def test_without_train_all_images_of_eval_are_listed(overlap: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    result = overlap("--eval", folders[1], "--out", tmp_path / "list.txt")
    assert result.stdout == f"wrote 20 lines to {tmp_path / 'list.txt'}\n"
    entries = list(read_image_list(tmp_path / "list.txt"))
    assert {entry.identity for entry in entries if entry.identity} == {f"coco:{number}" for number in range(10)}
    assert sha256_of(folders[1] / "000000000007.jpg") in {entry.sha256 for entry in entries}


def test_a_list_is_an_input(overlap: Cli, folders: tuple[Path, Path], tmp_path: Path) -> None:
    names = ["# of a benchmark", "3", sha256_of(folders[0] / "deep/small.jpg"), "somewhere/猫.jpg"]
    (tmp_path / "benchmark.txt").write_text("\n".join(names), encoding="utf-8")
    result = overlap(folders[0], "--eval", tmp_path / "benchmark.txt", "--json")
    (pair,) = pairs(result)
    assert (pair["eval"], pair["identity"], pair["sha256"], pair["perceptual"]) == ("benchmark.txt", 1, 1, 0)
    assert (
        "benchmark.txt: 1 of 3 names cannot be compared, for lack of a number that identifies the image"
        in result.stderr
    )


def test_names_and_bytes_alone(overlap: Cli, folders: tuple[Path, Path]) -> None:
    (pair,) = pairs(overlap(folders[0], "--eval", folders[1], "--no-perceptual", "--json"))
    assert "perceptual" not in pair and pair["any"] == 3
    assert overlap(folders[0], "--eval", folders[1], "--no-perceptual").stdout.splitlines()[1].split()[-5:] == [
        "-",
        "3",
        "3",
        "of",
        "10",
    ]


def test_without_the_library_the_other_keys_work(
    overlap: Cli, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagehash", None)
    result = overlap(folders[0], "--eval", folders[1], "--json")
    assert pairs(result)[0]["any"] == 3
    assert "Install it with `pip install 'griffon-pipeline[overlap]'`" in result.stderr


def test_what_is_no_image_is_reported_and_compared_by_its_bytes(overlap: Cli, folders: tuple[Path, Path]) -> None:
    for folder in folders:
        (folder / "page.jpg").write_bytes(b"<html>")
        (folder / "000000000099.jpg").symlink_to(folder / "gone.jpg")
    result = overlap(folders[0], "--eval", folders[1], "--json")
    assert pairs(result)[0]["sha256"] == 3
    assert "page.jpg: an HTML page, probably from a failed download; download it again" in result.stderr
    assert "000000000099.jpg: No such file or directory; only its name is compared" in result.stderr
    assert pairs(result)[0]["identity"] == 3
    assert len(json.loads(result.stdout)["unreadable"]) == 4


def test_images_of_one_colour_are_not_alike(overlap: Cli, tmp_path: Path, make_sample: Callable[..., Sample]) -> None:
    for name, size_px in (("a", (64, 48)), ("b", (100, 80))):
        (tmp_path / name).mkdir()
        image = make_sample(size_px=size_px).image
        assert image is not None
        (tmp_path / name / "grey.png").write_bytes(image)
    assert overlap(tmp_path / "a", "--eval", tmp_path / "b").stdout == "no image in common; 1 image examined\n"


def sample_of(make_sample: Callable[..., Sample], key: str, image: bytes | None, path: str) -> Sample:
    sample = make_sample(key, size_px=(320, 240) if image else None)
    origin = Origin(annotation="a.jsonl", record=int(key.rpartition("-")[2]), image=path)
    return replace(sample, image=image, image_format="JPEG" if image else "", origin=origin)


@pytest.fixture
def training_set(
    tmp_path: Path, write_set: Callable[..., Path], make_sample: Callable[..., Sample], jpeg: Callable[..., bytes]
) -> Path:
    """Image 4 in three samples of one source and one of another, Visual Genome's copy of image 5, and text."""
    four, five = jpeg(4), jpeg(5, quality=60)
    samples = [
        *(sample_of(make_sample, f"REG_a-{number:09d}", four, "000000000004.jpg") for number in range(3)),
        sample_of(make_sample, "DET_b-000000000", four, "own/four.jpg"),
        sample_of(make_sample, "DET_b-000000001", five, "VG_100K/77.jpg"),
        sample_of(make_sample, "DET_b-000000002", jpeg(300), "own/else.jpg"),
        sample_of(make_sample, "LAZY_text-000000000", None, ""),
    ]
    return write_set(tmp_path / "set", samples, render=MADE_NOW)


def test_sets_are_counted_by_source_and_image(
    overlap: Cli, training_set: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    image_data = tmp_path / "image_data.json"
    image_data.write_text('[{"image_id": 77, "coco_id": 5}]')
    arguments = (training_set, "--eval", folders[1], "--json")
    counts = {
        pair["train"]: tuple(pair[name] for name in ("identity", "sha256", "perceptual", "any"))
        for pair in pairs(overlap(*arguments, "--image-data", image_data, "--out", tmp_path / "list.txt"))
    }
    assert counts == {"REG_a": (1, 1, 1, 1), "DET_b": (1, 1, 2, 2)}
    assert {"coco:4", "coco:5", "visual_genome:77"} < set((tmp_path / "list.txt").read_text().splitlines())
    assert [pair["identity"] for pair in pairs(overlap(*arguments))] == [1, 0], "without image_data.json"


def test_of_a_shrunk_set_the_paths_are_listed(
    overlap: Cli,
    folders: tuple[Path, Path],
    tmp_path: Path,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
    jpeg: Callable[..., bytes],
) -> None:
    """Its bytes are not those of the files, which a build reads."""
    samples = [sample_of(make_sample, "DET-000000000", jpeg(6, side_px=200), "own/six.jpg")]
    root = write_set(tmp_path / "small", samples, render={**MADE_NOW, "resize": 200})
    overlap(root, "--eval", folders[1], "--out", tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text().splitlines()[1:] == ["own/six.jpg"]


def test_near_duplicates_within_a_set(overlap: Cli, tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    for source, images in {
        "a": {"1.jpg": jpeg(1), "1 small.jpg": jpeg(1, side_px=160), "2.jpg": jpeg(2), "copy of 2.jpg": jpeg(2)},
        "b": {"2.jpg": jpeg(2), "3.jpg": jpeg(3)},
    }.items():
        (tmp_path / source).mkdir()
        for name, data in images.items():
            (tmp_path / source / name).write_bytes(data)
    arguments = (tmp_path / "a", tmp_path / "b", "--self", "--out", tmp_path / "list.txt")
    found = {(pair["first"], pair["again"]): pair for pair in pairs(overlap(*arguments, "--json"))}
    assert {names: (pair["sha256"], pair["perceptual"]) for names, pair in found.items()} == {
        ("a", "a"): (0, 1),
        ("a", "b"): (1, 1),
    }
    assert found["a", "a"]["examples"] == [["1.jpg", "1 small.jpg"]]
    # The later of the two images is listed. The image that stands in both sources is no fault of either.
    assert (tmp_path / "list.txt").read_text().splitlines()[1:] == [sha256_of(tmp_path / "a/1.jpg")]


@pytest.mark.parametrize("orientation", [3, 6, 7])
@pytest.mark.parametrize("kept", ["turned", "without orientation", "with orientation"])
def test_copies_of_an_image_with_an_orientation_look_the_same(
    overlap: Cli, tmp_path: Path, jpeg: Callable[..., bytes], orientation: int, kept: str
) -> None:
    """A copy may have been turned upright, or only have lost the orientation, as most programs leave it out."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "copies").mkdir()
    stored, exif = Image.open(BytesIO(jpeg(8))), Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photos/a.jpg", quality=95, exif=exif)
    copy = ImageOps.exif_transpose(Image.open(tmp_path / "photos/a.jpg")) if kept == "turned" else stored
    copy.save(tmp_path / "copies/b.jpg", quality=80, exif=exif if kept == "with orientation" else Image.Exif())
    for one, other in (("photos", "copies"), ("copies", "photos")):
        (pair,) = pairs(overlap(tmp_path / one, "--eval", tmp_path / other, "--json"))
        assert (pair["perceptual"], pair["sha256"], pair["any"]) == (1, 0, 1)
    (pair,) = pairs(overlap(tmp_path / "photos", tmp_path / "copies", "--self", "--json"))
    assert pair["perceptual"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a"], 2, "give either --eval EVAL or --self"),
        (["a", "--eval", "a", "--self"], 2, "give either --eval EVAL or --self, not both"),
        (["--self"], 2, "no TRAIN; give the sets, folders or lists to look at"),
        (["--eval", "a"], 2, "no TRAIN; give the sets"),
        (["a", "--eval", "nowhere"], 2, "nowhere: no such set, folder or list; give one that exists"),
        (["a", "--eval", "a", "--out", "nowhere/list.txt"], 2, "--out nowhere/list.txt: there is no folder nowhere"),
        (["a", "--eval", "empty"], 1, "empty: has no images"),
        (["a", "--eval", "bad.txt"], 2, "bad.txt:2: expected an image's file name, COCO id, "),
        (["a", "--eval", "a", "--image-data", "bad.txt"], 1, "bad.txt: is not Visual Genome's image_data.json"),
    ],
)
def test_errors_are_one_line(
    overlap: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_text("1\nsome words\n")
    result = overlap(*arguments)
    assert result.returncode == code and f"error: {message}" in result.stderr


def test_linked_folders_are_entered_once_and_pipes_are_not_read(
    overlap: Cli, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    """Data sets are often folders of links; overlooking them would report no image in common."""
    train, evaluation = folders
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "images").symlink_to(train)
    (linked / "loop").symlink_to(linked)
    os.mkfifo(tmp_path / "pipe")
    (linked / "pipe.jpg").symlink_to(tmp_path / "pipe")
    expected = json.loads(overlap(train, "--eval", evaluation, "--json").stdout)
    result = json.loads(overlap(linked, "--eval", evaluation, "--json").stdout)
    assert result["images"] == expected["images"] > 0
    assert result["examined"] == expected["examined"] + 1
    assert any("pipe.jpg: is no file" in message for message in result["unreadable"])


def test_a_folder_may_be_visual_genomes_own(overlap: Cli, tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    for number, folder in enumerate(("x/VG_100K", "y/all/VG_100K")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "7.jpg").write_bytes(jpeg(number))
    (pair,) = pairs(overlap(tmp_path / "x/VG_100K", "--eval", tmp_path / "y", "--no-perceptual", "--json"))
    assert pair["identity"] == 1


def test_lists_compared_with_themselves_name_no_image_by_its_bytes(overlap: Cli, tmp_path: Path) -> None:
    """The bytes of the images of a list are unknown: a hash of zeros would name none of them."""
    (tmp_path / "a.txt").write_text("42\n43\nfoo.jpg\n")
    (tmp_path / "b.txt").write_text("COCO_val2014_000000000042.jpg\n")
    result = overlap(tmp_path / "a.txt", tmp_path / "b.txt", "--self", "--out", tmp_path / "list.txt")
    assert result.returncode == 0
    assert (tmp_path / "list.txt").read_text().splitlines()[1:] == []
    assert result.stderr.count("1 of 3 names cannot be compared") == 1
    assert "1 image is not in" in result.stderr


def test_of_images_that_were_turned_upright_the_paths_are_listed(
    overlap: Cli,
    tmp_path: Path,
    write_set: Callable[..., Path],
    make_sample: Callable[..., Sample],
    jpeg: Callable[..., bytes],
) -> None:
    samples = [sample_of(make_sample, "DET_a-000000000", jpeg(6), "own/six.jpg")]
    root = write_set(tmp_path / "set", samples, render=MADE_NOW)
    lock = read_lock(root)
    write_lock(root, replace(lock, sources=(replace(lock.sources[0], options={"orientation": "shown"}),)))
    (tmp_path / "val").mkdir()
    (tmp_path / "val/seven.jpg").write_bytes(jpeg(6))
    overlap(root, "--eval", tmp_path / "val", "--out", tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text().splitlines()[1:] == ["own/six.jpg"]
