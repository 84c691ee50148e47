"""Plain sample data: what the images show, whose labels they get, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from griffon_prep.cli import main
from griffon_prep.sample_data import write_plain_data
from griffon_prep.sample_data.plain import plain_scene
from griffon_shards.frozen_set import open_set
from griffon_shards.types import TASKS

IMAGES = 12
GROUND_RGB = (245, 245, 245)


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shapes_by_image(out: Path) -> dict[str, list[tuple[str, list[list[int]]]]]:
    found: dict[str, list[tuple[str, list[list[int]]]]] = {}
    for record in records_of(out / "vg.jsonl"):
        found.setdefault(record["image_path"], []).append((record["expression"], record["bboxes"]))
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plain_data(tmp_path_factory.mktemp("plain") / "out", seed=3, images=IMAGES).parent


def test_every_box_is_exactly_around_a_shape_and_nothing_else_is_painted(plain: Path) -> None:
    for name, shapes in shapes_by_image(plain).items():
        pixels = np.asarray(Image.open(plain / "images" / name))
        painted = (pixels != GROUND_RGB).any(axis=-1)
        assert 1 <= len(shapes) <= 3
        for _, [(x1, y1, x2, y2)] in shapes:
            window = painted[y1:y2, x1:x2]
            assert window[[0, -1]].any(axis=1).all() and window[:, [0, -1]].any(axis=0).all()
            painted[y1:y2, x1:x2] = False
            margin = painted[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3]
            assert not margin.any(), f"{name}: another shape is close"
        assert not painted.any(), f"{name}: a shape has no box"


def test_an_expression_names_the_colour_of_one_shape_alone(plain: Path) -> None:
    for name, shapes in shapes_by_image(plain).items():
        pixels = np.asarray(Image.open(plain / "images" / name)).astype(int)
        middles = {}
        for expression, [(x1, y1, x2, y2)] in shapes:
            middles[expression] = pixels[(y1 + y2) // 2, (x1 + x2) // 2]
        assert len(middles) == len(shapes)
        channels = {"red": 0, "green": 1, "blue": 2}
        for colour in channels.keys() & middles.keys():
            assert int(middles[colour].argmax()) == channels[colour]


def test_tasks_share_the_images_and_agree(plain: Path) -> None:
    assert sorted(path.name for path in (plain / "images").iterdir()) == [f"{n:06d}.png" for n in range(IMAGES)]
    expected = shapes_by_image(plain)
    assert records_of(plain / "reg.jsonl") == records_of(plain / "vg.jsonl")
    for record in records_of(plain / "det.jsonl"):
        objects = [(each["category_name"].removesuffix(" bar"), each["bboxes"]) for each in record["objects"]]
        assert objects == expected[record["image_path"]]
    for record in records_of(plain / "lazy.jsonl"):
        caption = record["conversations"][1]["value"].lower()
        assert all(f"{expression} bar" in caption for expression, _ in expected[record["image"]])


def test_every_task_builds_without_a_reject(plain: Path, tmp_path: Path) -> None:
    given = ["--manifest", str(plain / "manifest.txt"), "--data-root", str(plain), "--workers", "1"]
    built = CliRunner().invoke(main, ["build", *given, "--out", str(tmp_path / "set")])
    assert built.exit_code == 0, built.output
    frozen = open_set(tmp_path / "set")
    assert [source.tag for source in frozen.lock.sources] == [f"{task}_plain" for task in TASKS]
    assert len(frozen) == 4 * IMAGES + 2 * sum(map(len, shapes_by_image(plain).values()))


def test_permuted_labels_are_those_of_another_image(plain: Path, tmp_path: Path) -> None:
    out = write_plain_data(tmp_path / "out", seed=3, images=IMAGES, tasks=["VG"], permute_labels=True).parent
    images = {path.name: path.read_bytes() for path in (plain / "images").iterdir()}
    assert {path.name: path.read_bytes() for path in (out / "images").iterdir()} == images
    own, given = shapes_by_image(plain), shapes_by_image(out)
    assert sorted(own.values()) == sorted(given.values())
    assert not any(own[name] == given[name] for name in own)


def test_an_image_depends_on_the_seed_and_its_number_alone(plain: Path, tmp_path: Path) -> None:
    few = write_plain_data(tmp_path / "few", seed=3, images=2, tasks=["DET"]).parent
    assert (few / "det.jsonl").read_bytes() == b"".join((plain / "det.jsonl").read_bytes().splitlines(True)[:2])
    held_out = write_plain_data(tmp_path / "other", seed=4, images=IMAGES, tasks=["VG"]).parent
    assert not {*map(str, shapes_by_image(plain).values())} & {*map(str, shapes_by_image(held_out).values())}


def test_the_scene_is_pinned() -> None:
    """Held-out figures compare only while the same seed means the same images."""
    shapes = [shape for number in range(2) for shape in plain_scene(0, number).shapes]
    assert [(shape.category, shape.box_xyxy_px) for shape in shapes] == [
        ("green bar", (14, 27, 60, 52)),
        ("blue bar", (53, 1, 94, 17)),
        ("red bar", (67, 35, 95, 53)),
        ("pink bar", (52, 1, 99, 25)),
        ("red bar", (1, 7, 41, 31)),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tasks", "VG"], "--tasks: only for --plain; "),
        (["--permute-labels"], "--permute-labels: only for --plain; "),
        (["--plain", "--tasks", "VG,vg"], "--tasks VG,vg: expected some of LAZY,DET,RANDDET,REG,VG,VISJ, each once"),
        (["--plain", "--tasks", "VG,VG"], "--tasks VG,VG: expected some of "),
        (["--plain", "--tasks", ""], "--tasks : expected some of "),
        (["--plain", "--permute-labels", "--images", "1"], "--permute-labels: one image has no other "),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], said: str, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["sample-data", str(tmp_path / "out"), *options])
    assert (refused.exit_code, refused.stderr[: len("error: " + said)]) == (2, "error: " + said)
    assert not (tmp_path / "out").exists()
