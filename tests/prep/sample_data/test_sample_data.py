"""The sample data: reproducible, of every coding and name, and refused where they would overwrite something."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from griffon_prep.cli import main
from griffon_prep.sample_data import write_sample_data
from griffon_prep.sample_data.scene import scene

IMAGES = 48
PARQUET = {"parquet"} if importlib.util.find_spec("pyarrow") else set()
LINES = ("llava/text_only.jsonl", *(f"ccmd/{task}.jsonl" for task in ("det", "randdet", "reg", "vg", "visj")))
DEMO = Path(__file__).parents[3] / "manifests/demo.txt"


@pytest.fixture(scope="module")
def pictures(drawn_data: Path) -> list[Path]:
    """The images of shapes."""
    paths = [path for path in (drawn_data / "pictures").rglob("*") if path.is_file()]
    return [path for path in paths if "empty" not in path.parent.name]


def sources(manifest: Path) -> list[str]:
    lines = manifest.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- reproducible ---


def test_the_same_seed_gives_the_same_bytes(drawn_data: Path, tmp_path: Path) -> None:
    # A fresh interpreter with another hash seed: nothing may depend on the order of a set.
    code = (
        "import sys, pathlib; from griffon_prep.sample_data import write_sample_data as write;"
        f"write(pathlib.Path(sys.argv[1]), seed=0, images={IMAGES})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert tree(tmp_path / "again") == tree(drawn_data)


def test_another_seed_gives_other_images_and_annotations(drawn_data: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "other", seed=1, images=IMAGES)
    here, other = tree(drawn_data), tree(tmp_path / "other")
    unchanged = [name for name, content in here.items() if other.get(name) == content]
    assert set(unchanged) == {"manifest.txt", "yolo/data.yaml", "openimages/class-descriptions-boxable.csv"}
    looks = [[[shape.category for shape in scene(seed, i).shapes] for i in range(20)] for seed in (0, 1)]
    assert not any(one == other for one, other in zip(*looks, strict=True))


def test_the_bytes_of_an_image_do_not_depend_on_how_many_there_are(drawn_data: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "few", seed=0, images=5)
    few, many = tree(tmp_path / "few"), tree(drawn_data)
    pictures = [name for name in few if name.startswith("pictures/")]
    assert len(pictures) == 5
    assert all(few[name] == many[name] for name in pictures)
    assert all(many[name].startswith(few[name]) for name in LINES)


def test_the_scene_is_pinned() -> None:
    """Boxes come from integers alone, so they hold on every machine and with every Pillow."""
    pictured = scene(0, 0)
    assert pictured.image_path == "图形/第二批 混合/shape 0000 红色.jpg"
    assert (pictured.width_px, pictured.height_px) == (247, 372)
    assert [(shape.category, shape.box_xyxy_px) for shape in pictured.shapes] == [
        ("red oval", (1, 276, 47, 368)),
        ("pink star", (1, 120, 82, 205)),
        ("pink star", (88, 277, 179, 371)),
    ]


# --- of every form ---


def test_images_are_jpeg_png_and_webp_as_their_names_say(pictures: list[Path]) -> None:
    codings = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
    result = set()
    assert len(pictures) == IMAGES
    for path in pictures:
        with Image.open(path) as picture:
            assert codings[str(picture.format)] == path.suffix
            result.add(picture.format)
    assert result == set(codings)


def test_names_contain_spaces_and_chinese_in_files_and_folders(drawn_data: Path, pictures: list[Path]) -> None:
    names = [path.relative_to(drawn_data / "pictures") for path in pictures]
    assert all(" " in name.name and re.search("[\u4e00-\u9fff]", name.name) for name in names)
    assert any(re.search("[\u4e00-\u9fff]", name.parent.as_posix()) for name in names)
    assert any(" " in name.parent.as_posix() for name in names)
    assert any(len(name.parts) == 3 for name in names)


def test_the_manifest_names_every_annotation(drawn_data: Path) -> None:
    lines = sources(drawn_data / "manifest.txt")
    assert lines[:7] == [
        "LAZY_caption & llava/captions.json & pictures",
        "LAZY_text & llava/text_only.jsonl & pictures",
        "DET_shapes & ccmd/det.jsonl & pictures",
        "RANDDET_shapes & ccmd/randdet.jsonl & pictures",
        "REG_shapes & ccmd/reg.jsonl & pictures",
        "VG_shapes & ccmd/vg.jsonl & pictures",
        "VISJ_shapes & ccmd/visj.jsonl & pictures",
    ]
    read_beside_others = {"image_data.json", "instances.json"}
    named = {line.split(" & ")[1] for line in lines}
    folders = {name for name in named if (drawn_data / name).is_dir()}
    assert folders == {"voc/Annotations", "labelme", "flickr30k/entities", *PARQUET}
    inside = tuple(f"{folder}/" for folder in folders)
    names = {name for name in tree(drawn_data) if not name.startswith(inside)}
    annotations = {name for name in names if name.endswith((".json", ".jsonl", ".p", ".yaml", "-bbox.csv"))}
    assert named - folders <= annotations
    assert {Path(name).name for name in annotations - named} == read_beside_others


def test_the_demo_freezes_what_is_drawn(drawn_data: Path) -> None:
    """All but Parquet, which needs an extra."""
    assert [*sources(DEMO), *(["LAZY_parquet & parquet & pictures"] * len(PARQUET))] == sources(
        drawn_data / "manifest.txt"
    )


@pytest.mark.parametrize("images", [1, 2, IMAGES])
def test_no_task_is_without_records(tmp_path: Path, images: int) -> None:
    out = write_sample_data(tmp_path / "out", seed=3, images=images).parent
    for name in LINES:
        assert len((out / name).read_bytes().splitlines()) >= images
    assert len(json.loads((out / "llava/captions.json").read_text(encoding="utf-8"))) >= images


# --- what is refused ---


def _something(out: Path) -> None:
    out.mkdir()
    (out / "mine.txt").write_text("mine")


def _hidden(out: Path) -> None:
    out.mkdir()
    (out / ".mine").write_text("mine")


def _part_of_sample_data(out: Path) -> None:
    write_sample_data(out, seed=0, images=2)
    (out / "manifest.txt").unlink()


TAKEN: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda out: out.write_text("mine"), "is a file, expected a new or an empty folder; "),
    "a folder with a file": (_something, "is not empty, expected a new or an empty folder; choose another one"),
    "a folder with a hidden file": (_hidden, "is not empty, "),
    "sample data": (lambda out: write_sample_data(out, seed=1, images=2), "already holds sample data; use it, "),
    "a part of sample data": (_part_of_sample_data, "is not empty, "),
    "a link to nowhere": (lambda out: out.symlink_to("nowhere"), "is not a folder, "),
    "a pipe": (os.mkfifo, "is not a folder, "),
}


@pytest.mark.parametrize("what", TAKEN)
def test_what_is_there_is_untouched(what: str, tmp_path: Path) -> None:
    put, message = TAKEN[what]
    out = tmp_path / "样例 out"
    put(out)
    before = tree(tmp_path)
    refused = CliRunner().invoke(main, ["sample-data", str(out), "--images", "2"])
    assert refused.exit_code == 2, refused.exception
    assert refused.stderr.startswith(f"error: {out}: {message}")
    assert len(refused.stderr.splitlines()) == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_no_files(there: bool, tmp_path: Path) -> None:
    """The same command can begin again, in a folder that was there as in one that was not."""
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); "
    code += f"from griffon_prep.cli import main; main(['sample-data', {str(out)!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {out}/") and "File too large" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert out.exists() == there
    assert tree(tmp_path) == {}
    write_sample_data(out, seed=0, images=2)


def test_a_parent_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused = CliRunner().invoke(main, ["sample-data", str(tmp_path / "file" / "out")])
    assert refused.exit_code == 1, refused.exception
    assert refused.stderr == f"error: {tmp_path / 'file' / 'out'}: Not a directory\n"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_sample_data(tmp_path, seed=0, images=1) == tmp_path / "manifest.txt"


def test_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        write_sample_data(tmp_path / "out", seed=0, images=0)
    assert not (tmp_path / "out").exists()
