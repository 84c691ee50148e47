"""Exclusion lists, excluded keys, train and val: in whole builds."""

import json
import re
import shutil
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from griffon_prep.cli import main
from griffon_shards.cli import main as shards_main
from griffon_shards.frozen_set import open_set
from griffon_shards.support.files import sha256_of
from griffon_shards.verify import verify_set

TAGS = ("DET_coco", "VG_coco", "REG_vg", "DET_own", "VG_vg")
IMAGES = 60
COCO_OF = {number: 1000 + number for number in range(1, IMAGES, 2)}  # every second image of Visual Genome is COCO's


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images under COCO's names of two years, Visual Genome's, and names that say nothing; and some text."""
    root = tmp_path_factory.mktemp("selection") / "data"
    for folder in ("coco", "VG_100K", "own"):
        (root / folder).mkdir(parents=True)
    for number in range(1, IMAGES):
        out = BytesIO()
        Image.new("RGB", (40, 30), (number * 4, 80, 255 - number * 4)).save(out, "PNG")
        for name in (f"coco/{1000 + number:012d}.jpg", f"VG_100K/{number}.jpg", f"own/猫 {number}.png"):
            (root / name).write_bytes(out.getvalue())
    numbers = range(1, IMAGES)
    write_lines(
        root / "det.jsonl", [boxes(f"train2014/COCO_train2014_{1000 + i:012d}.jpg", "objects") for i in numbers]
    )
    for number in numbers:  # under the name of 2014, too
        shutil.copy(root / f"coco/{1000 + number:012d}.jpg", root / f"coco/COCO_train2014_{1000 + number:012d}.jpg")
    write_lines(root / "vg.jsonl", [boxes(f"{1000 + i:012d}.jpg", name) for i in numbers for name in ("one", "two")])
    write_lines(root / "vg_vg.jsonl", [boxes(f"{i}.jpg", "one") for i in numbers])
    write_lines(root / "own.jsonl", [boxes(f"own/猫 {i}.png", "objects") for i in numbers])
    turns = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Yes."}]
    write_lines(
        root / "text.jsonl", [{"id": i, "conversations": [turns[0], {**turns[1], "value": str(i)}]} for i in numbers]
    )
    regions = [{"region_id": 1, "x": 1, "y": 1, "width": 9, "height": 9, "phrase": "it"}]
    (root / "region_descriptions.json").write_text(json.dumps([{"id": i, "regions": regions} for i in numbers]))
    image_data = [
        {"image_id": i, "coco_id": COCO_OF.get(i), "width": 40, "height": 30, "url": f"http://x/VG_100K/{i}.jpg"}
        for i in numbers
    ]
    (root / "image_data.json").write_text(json.dumps(image_data))
    (root / "manifest.txt").write_text(
        "DET_coco & det.jsonl & coco\nVG_coco & vg.jsonl & coco & rounds=2\nREG_vg & region_descriptions.json & .\n"
        "DET_own & own.jsonl & .\nLAZY_text & text.jsonl & .\n"
        "VG_vg & vg_vg.jsonl & VG_100K & image_data=image_data.json\n"
    )
    return root


def boxes(image_path: str, kind: str) -> dict[str, Any]:
    content: dict[str, dict[str, Any]] = {
        "objects": {"objects": [{"category_name": "it", "bboxes": [[1, 1, 20, 20]]}]},
        "one": {"expression": "it", "bboxes": [[1, 1, 20, 20]]},
        "two": {"expression": "them", "bboxes": [[3, 3, 30, 25]]},
    }
    return {"image_path": image_path, "width": 40, "height": 30, **content[kind]}


def write_lines(path: Path, records: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def build(data: Path, out: Path, *options: object, manifest: str = "manifest.txt") -> Result:
    arguments = ["build", "--manifest", data / manifest, "--data-root", data, "--out", out, "--workers", 1, *options]
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def built(data: Path, out: Path, *options: object, manifest: str = "manifest.txt") -> Path:
    result = build(data, out, *options, manifest=manifest)
    assert result.exit_code == 0, result.stderr
    return out


def info(root: Path) -> str:
    return CliRunner().invoke(shards_main, ["info", str(root)]).stdout


def image_numbers(root: Path, tag: str) -> set[int]:
    """Numbers of the images, by the last digits of their names."""
    shards = open_set(root)
    paths = [str(shards[row].origin.image) for row in shards.rows_of_source(tag)]
    return {int(re.findall(r"(\d+)\.", path)[0]) % 1000 for path in paths}


def keys(root: Path) -> set[str]:
    shards = open_set(root)
    return {shards.key(row) for row in range(len(shards))}


@pytest.fixture(scope="module")
def everything(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(data, tmp_path_factory.mktemp("everything") / "set")


def test_listed_images_are_excluded_under_every_name(data: Path, everything: Path, tmp_path: Path) -> None:
    listed = tmp_path / "benchmark.txt"
    sha256 = sha256_of(data / "own/猫 9.png")  # the same bytes as those of image 9 under COCO's names
    listed.write_text(f"# val\n1001\nCOCO_val2014_000000001003.jpg\nown/猫 8.png\n{sha256}\n", encoding="utf-8")
    out = built(data, tmp_path / "set", "--exclude", listed)
    gone = {  # record 0 is of image 1
        *(f"{tag}-{record:09d}" for tag in ("DET_coco", "VG_coco", "REG_vg", "VG_vg") for record in (0, 2, 8)),
        *("DET_own-000000007", "DET_own-000000008"),
    }
    assert keys(out) == keys(everything) - gone
    lock = open_set(out).lock
    assert {source.tag: dict(source.rejected) for source in lock.sources}["REG_vg"] == {"excluded": 3}
    assert {tuple(source.excluded.items()) for source in lock.sources} == {(("benchmark.txt", sha256_of(listed)),)}
    assert f"without benchmark.txt (SHA-256 {sha256_of(listed)}): all sources\n" in info(out)
    assert str(tmp_path) not in (out / "griffon.lock.json").read_text()
    assert list(verify_set(out, deep=True)) == []


def test_what_overlap_lists_is_gone_from_the_next_build(data: Path, everything: Path, tmp_path: Path) -> None:
    """The evaluation has image 5 and 6 under COCO's name alone, and image 8 as a file with the same bytes."""
    (tmp_path / "val").mkdir()
    (tmp_path / "val/COCO_val2014_000000001005.jpg").write_bytes(b"another copy")
    (tmp_path / "val/COCO_val2014_000000001006.jpg").write_bytes(b"another copy")
    shutil.copy(data / "own/猫 8.png", tmp_path / "val/eight.png")
    common = ["--eval", tmp_path / "val", "--image-data", data / "image_data.json", "--workers", 1]
    listed = tmp_path / "list.txt"
    overlap = CliRunner().invoke(shards_main, [*map(str, ["overlap", everything, *common, "--out", listed])])
    assert overlap.exit_code == 0 and "DET_coco" in overlap.stdout
    out = built(data, tmp_path / "set", "--exclude", listed)
    again = CliRunner().invoke(shards_main, [*map(str, ["overlap", out, *common])])
    assert again.stdout.startswith("no image in common; ")
    lost = {tag: image_numbers(everything, tag) - image_numbers(out, tag) for tag in TAGS}
    # The bytes of all copies of an image are the same here, so one that is found takes all others with it.
    assert lost == {tag: {5, 6, 8} for tag in TAGS}


def test_excluded_records_do_not_count_as_rejects(data: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("".join(f"{1000 + number}\n" for number in range(1, 40)))
    out = built(data, tmp_path / "set", "--exclude", tmp_path / "many.txt", "--max-rejects", 0)
    assert [source.samples for source in open_set(out).lock.sources] == [20, 20, 39, 59, 59, 39]


def test_a_list_of_one_line_changes_one_source(data: Path, everything: Path, tmp_path: Path) -> None:
    """Its path starts from the data root; with --reuse only the source that it belongs to is made again."""
    copy = shutil.copytree(data, tmp_path / "data", symlinks=True)
    lines = (
        (copy / "manifest.txt").read_text().replace("& det.jsonl & coco", "& det.jsonl & coco & exclude=lists/a.txt")
    )
    (copy / "manifest.txt").write_text(lines)
    (copy / "lists").mkdir()
    (copy / "lists/a.txt").write_text("1001\n")
    result = build(copy, tmp_path / "set", "--reuse", everything)
    assert result.exit_code == 0, result.stderr
    assert f"reused from {everything}: VG_coco, REG_vg, DET_own, LAZY_text, VG_vg\n" in result.stderr
    assert keys(everything) - keys(tmp_path / "set") == {"DET_coco-000000000"}
    assert "up to date" in build(copy, tmp_path / "set").stderr
    (copy / "lists/a.txt").write_text("1002\n")
    changed = build(copy, tmp_path / "set")
    assert changed.exit_code == 1 and "(source DET_coco: excluded changed)" in changed.stderr
    both = build(copy, tmp_path / "both", "--exclude", copy / "a.txt")
    assert both.exit_code == 2 and "a.txt: the list cannot be read" in both.stderr
    (copy / "a.txt").write_text("5\n")
    both = build(copy, tmp_path / "both", "--exclude", copy / "a.txt")
    assert both.exit_code == 2 and "DET_coco: two exclusion lists have the file name a.txt" in both.stderr


def test_a_build_does_not_resume_with_another_list(data: Path, tmp_path: Path) -> None:
    write_lines(data / "gone.jsonl", [boxes("own/gone.png", "objects")] * 11)
    (data / "gone.txt").write_text("DET & gone.jsonl & .\n")
    (tmp_path / "list.txt").write_text("1\n")
    stopped = build(data, tmp_path / "set", "--exclude", tmp_path / "list.txt", manifest="gone.txt")
    assert stopped.exit_code == 1 and "--max-rejects allows 10 of 11" in stopped.stderr
    (tmp_path / "list.txt").write_text("2\n")
    resumed = build(data, tmp_path / "set", "--exclude", tmp_path / "list.txt", manifest="gone.txt")
    assert resumed.exit_code == 1
    assert "holds an unfinished build with other inputs (source DET: excluded changed)" in resumed.stderr


def test_a_bad_list_is_reported_once_and_nothing_is_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("1001\nnot an image\n")
    result = build(data, tmp_path / "set", "--exclude", tmp_path / "bad.txt")
    assert result.exit_code == 2 and not (tmp_path / "set").exists()
    assert result.stderr.count("bad.txt:2: expected an image's file name, COCO id, ") == 1


def test_excluded_keys(data: Path, everything: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks.jsonl"
    marks.write_text(
        '{"key":"DET_own-000000005","note":"?"}\nVG_coco-000000004\nVG_coco-000000059\nDET_onw-000000001\n'
    )
    result = build(data, tmp_path / "set", "--exclude-keys", marks)
    assert result.exit_code == 0, result.stderr
    assert keys(everything) - keys(tmp_path / "set") == {"DET_own-000000005", "VG_coco-000000004"}
    assert "2 keys name no record of this build, such as VG_coco-000000059 in line 3\n" in result.stderr
    sources = {source.tag: source for source in open_set(tmp_path / "set").lock.sources}
    assert {tag for tag, source in sources.items() if source.excluded} == {"DET_own", "VG_coco"}
    assert sources["VG_coco"].rejected == {"excluded": 1}
    assert f"without marks.jsonl (SHA-256 {sha256_of(marks)}): VG_coco, DET_own\n" in info(tmp_path / "set")


@pytest.fixture(scope="module")
def parts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    return {part: built(data, folder / part, "--default-part", part, "--val-share", "30%") for part in ("train", "val")}


def test_train_and_val_are_all_records_and_share_none(everything: Path, parts: dict[str, Path]) -> None:
    """Their numbers are those of the complete source, and val is whole images."""
    train, val = keys(parts["train"]), keys(parts["val"])
    assert train | val == keys(everything) and not train & val
    shards = open_set(parts["val"])
    assert all(6 <= source.samples <= 30 and source.records == source.samples for source in shards.lock.sources)
    assert all(list(verify_set(root, deep=True)) == [] for root in parts.values())


def test_an_image_is_on_one_side_in_every_source(parts: dict[str, Path]) -> None:
    """Under COCO's name of 2014 (DET_coco), of 2017 (VG_coco), and Visual Genome's (REG_vg), where it is COCO's."""
    sides = {part: {tag: image_numbers(root, tag) for tag in TAGS} for part, root in parts.items()}
    for part in sides.values():
        assert part["DET_coco"] == part["VG_coco"]
        assert part["REG_vg"] & COCO_OF.keys() == part["DET_coco"] & COCO_OF.keys()
        assert part["VG_vg"] == part["REG_vg"]


def test_info_shows_the_part(parts: dict[str, Path]) -> None:
    assert "part val (val has 3/10 of the images, seed 0): all sources\n" in info(parts["val"])
    (first, *_) = open_set(parts["train"]).lock.sources
    assert first.options == {"part": "train", "val_share": "3/10", "val_seed": "0"}


def test_the_seed_of_the_build_leaves_the_sides_alone_and_that_of_val_does_not(
    data: Path, parts: dict[str, Path], tmp_path: Path
) -> None:
    share = ("--default-part", "val", "--val-share", "0.3")
    assert keys(built(data, tmp_path / "seed", *share, "--seed", 5)) == keys(parts["val"])
    assert keys(built(data, tmp_path / "val", *share, "--val-seed", 5)) != keys(parts["val"])


def test_a_line_has_its_own_part_and_mixing_is_reported(data: Path, tmp_path: Path) -> None:
    (data / "mixed.txt").write_text("DET_coco & det.jsonl & coco & part=val\nDET_own & own.jsonl & . & limit=9\n")
    result = build(data, tmp_path / "set", "--val-share", "20%", manifest="mixed.txt")
    assert result.exit_code == 0, result.stderr
    assert "use different parts of their images: DET_coco val, DET_own all; a set with" in result.stderr
    own = build(data, tmp_path / "own", "--default-part", "train", "--val-share", "20%", manifest="mixed.txt")
    assert "DET_coco val, DET_own train" in own.stderr
    assert [source.samples for source in open_set(tmp_path / "own").lock.sources][1] == 9


def test_an_empty_part(data: Path, tmp_path: Path) -> None:
    none = ("--default-part", "val", "--val-share", "0.000001")
    (data / "two.txt").write_text("DET_own & own.jsonl & .\nDET_coco & det.jsonl & coco & part=train\n")
    result = build(data, tmp_path / "set", *none, manifest="two.txt")
    assert result.exit_code == 1
    assert "DET_own: part=val has none of its 59 records; give another --val-share, remove" in result.stderr
    out = built(data, tmp_path / "set", *none, "--allow-empty", manifest="two.txt")
    assert [source.samples for source in open_set(out).lock.sources] == [0, 59]


@pytest.mark.parametrize("option", [("--val-share", "5%"), ("--val-seed", 1)])
def test_a_share_without_a_part_is_refused(data: Path, tmp_path: Path, option: tuple[object, ...]) -> None:
    result = build(data, tmp_path / "set", *option)
    assert result.exit_code == 2 and f"{option[0]}: no source has a part; give --default-part train or" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("part=test", "option part=test: expected train or val"),
        ("image_data=nowhere.json", "image_data=nowhere.json: no such file; relative paths start from --data-root"),
        ("exclude=nowhere.txt", "nowhere.txt: the list cannot be read"),
    ],
)
def test_bad_options(data: Path, tmp_path: Path, options: str, message: str) -> None:
    (data / "bad.txt").write_text(f"DET_own & own.jsonl & . & {options}\n")
    result = build(data, tmp_path / "set", manifest="bad.txt")
    assert result.exit_code == 2 and f"{data}/bad.txt:1: " in result.stderr and message in result.stderr


def test_another_file_as_image_data(data: Path, tmp_path: Path) -> None:
    (data / "wrong.txt").write_text("DET_own & own.jsonl & . & part=train, image_data=region_descriptions.json\n")
    result = build(data, tmp_path / "set", manifest="wrong.txt")
    assert result.exit_code == 1
    assert f"DET_own: {data}/region_descriptions.json: is not Visual Genome's image_data.json" in result.stderr


def test_a_list_that_excludes_nothing_is_reported(data: Path, tmp_path: Path) -> None:
    (tmp_path / "used.txt").write_text("1001\n")
    (tmp_path / "typo.txt").write_text("holyday.jpg\n")
    lists = ("--exclude", tmp_path / "used.txt", "--exclude", tmp_path / "typo.txt")
    result = build(data, tmp_path / "out", *lists)
    assert result.exit_code == 0
    (warning,) = [line for line in result.output.splitlines() if "excludes no image" in line]
    assert f"warning: {tmp_path / 'typo.txt'}: excludes no image of DET_coco, " in warning
