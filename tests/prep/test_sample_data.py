"""The sample data: reproducible, true to its pictures, and of every form that the formats allow."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from griffon_prep.sample_data import write_sample_data
from griffon_prep.sample_data.paint import paint
from griffon_prep.sample_data.scene import scene

Records = list[dict[str, Any]]
Objects = dict[str, dict[str, list[list[int]]]]

IMAGES = 48
CCMD = ("det", "randdet", "reg", "vg", "visj")
SCENES = [scene(7, number) for number in range(24)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_data(tmp_path_factory.mktemp("sample") / "样例 data", seed=0, images=IMAGES).parent


@pytest.fixture(scope="module")
def objects(data: Path) -> Objects:
    """What is where on each picture, as the detection annotation has it."""
    return {record["image_path"]: boxes_of(record) for record in read_lines(data / "ccmd/det.jsonl")}


@pytest.fixture(scope="module")
def captions(data: Path) -> Records:
    records: Records = json.loads((data / "llava/captions.json").read_text(encoding="utf-8"))
    return records


@pytest.fixture(scope="module")
def pictures(data: Path) -> list[Path]:
    return [path for path in (data / "pictures").rglob("*") if path.is_file()]


def read_lines(path: Path) -> Records:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def boxes_of(record: dict[str, Any]) -> dict[str, list[list[int]]]:
    return {each["category_name"]: each["bboxes"] for each in record["objects"]}


def boxes_in(record: dict[str, Any]) -> list[list[int]]:
    """All boxes of a record of any task; `bboxes` may be one box."""
    if "objects" in record:
        return [box for boxes in boxes_of(record).values() for box in boxes]
    boxes: list[Any] = record["bboxes"]
    return [boxes] if boxes and isinstance(boxes[0], int) else boxes


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bounds(changed: np.ndarray[Any, Any]) -> list[int]:
    """The box around the true places, by search from each side."""
    height_px, width_px = changed.shape
    x1 = next(x for x in range(width_px) if changed[:, x].any())
    y1 = next(y for y in range(height_px) if changed[y].any())
    x2 = next(x for x in range(width_px, 0, -1) if changed[:, x - 1].any())
    y2 = next(y for y in range(height_px, 0, -1) if changed[y - 1].any())
    return [x1, y1, x2, y2]


def differs(one: Image.Image, other: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(np.any(np.asarray(one) != np.asarray(other), axis=2))


# --- reproducible ---


def test_the_same_seed_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    # A fresh interpreter with another hash seed: nothing may depend on the order of a set.
    code = (
        "import sys, pathlib; from griffon_prep.sample_data import write_sample_data as write;"
        f"write(pathlib.Path(sys.argv[1]), seed=0, images={IMAGES})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, env=environment)
    assert tree(tmp_path / "again") == tree(data)


def test_another_seed_gives_other_pictures_and_annotations(data: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "other", seed=1, images=IMAGES)
    here, other = tree(data), tree(tmp_path / "other")
    unchanged = [name for name, content in here.items() if other.get(name) == content]
    assert unchanged == ["manifest.txt"]
    looks = [[[shape.category for shape in scene(seed, number).shapes] for number in range(20)] for seed in (0, 1)]
    assert not any(one == other for one, other in zip(*looks, strict=True))


def test_the_bytes_of_a_picture_do_not_depend_on_how_many_there_are(data: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "few", seed=0, images=5)
    few, many = tree(tmp_path / "few"), tree(data)
    pictures = [name for name in few if name.startswith("pictures/")]
    assert len(pictures) == 5
    assert all(few[name] == many[name] for name in pictures)
    assert all(many[f"ccmd/{task}.jsonl"].startswith(few[f"ccmd/{task}.jsonl"]) for task in CCMD)


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


# --- true to the pictures ---


def test_boxes_bound_exactly_what_is_painted() -> None:
    seen = set()
    for pictured in SCENES:
        empty = paint(replace(pictured, shapes=()))
        for shape in pictured.shapes:
            changed = differs(paint(replace(pictured, shapes=(shape,))), empty)
            assert bounds(changed) == list(shape.box_xyxy_px), (pictured.number, shape)
            seen.add(shape.kind)
    assert len(seen) == 10


def test_annotated_boxes_are_those_of_the_written_pictures(data: Path) -> None:
    checked = 0
    for number, record in enumerate(read_lines(data / "ccmd/det.jsonl")):
        if not record["image_path"].endswith(".png"):  # the others change every pixel a little
            continue
        with Image.open(data / "pictures" / record["image_path"]) as picture:
            changed = differs(picture, paint(replace(scene(0, number), shapes=())))
        boxes = np.array(boxes_in(record))
        assert bounds(changed) == [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
        checked += 1
    assert checked == IMAGES // 3


def test_every_scene_has_shapes_that_overlap_but_can_all_be_seen() -> None:
    overlaps = 0
    for pictured in SCENES:
        assert len(pictured.shapes) >= 2
        whole, empty = paint(pictured), paint(replace(pictured, shapes=()))
        for shape in pictured.shapes:
            others = tuple(other for other in pictured.shapes if other is not shape)
            visible = differs(whole, paint(replace(pictured, shapes=others))).sum()
            alone = differs(paint(replace(pictured, shapes=(shape,))), empty).sum()
            assert visible > alone / 10
            overlaps += visible < alone
    assert overlaps > len(SCENES) / 4


def test_every_annotated_picture_exists_with_the_stated_size(data: Path, captions: Records, objects: Objects) -> None:
    sizes = set()
    for task in CCMD:
        for record in read_lines(data / f"ccmd/{task}.jsonl"):
            with Image.open(data / "pictures" / record["image_path"]) as picture:
                assert picture.size == (record["width"], record["height"])
            for x1, y1, x2, y2 in boxes_in(record):
                assert 0 <= x1 < x2 <= record["width"]
                assert 0 <= y1 < y2 <= record["height"]
            sizes.add((record["width"], record["height"]))
    assert all((data / "pictures" / record["image"]).is_file() for record in captions)
    assert {record["image"] for record in captions} == set(objects)
    assert len(sizes) > IMAGES / 2
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert all(160 <= side <= 700 for size in sizes for side in size)
    assert any(side % 2 for size in sizes for side in size)


# --- true to one another ---

SIDES = {
    "leftmost": "left", "far left": "left", "rightmost": "right", "far right": "right",
    "topmost": "top", "very top": "top", "lowest": "bottom", "very bottom": "bottom",
}  # fmt: skip
EXPRESSION = re.compile(
    r"the (?:(?P<order>only|largest|smallest|leftmost|rightmost|topmost|lowest) )?"
    r"(?:(?P<colour>red|orange|yellow|green|blue|purple|pink|black) )?(?P<kind>[a-z]+)"
    r"(?: at the (?P<place>far left|far right|very top|very bottom))?"
)
# Each reading of an order, as a number that is smallest for the shape meant.
READINGS: dict[str, tuple[Callable[[list[int]], int], ...]] = {
    "left": (lambda box: box[0], lambda box: box[0] + box[2]),
    "right": (lambda box: -box[2], lambda box: -box[0] - box[2]),
    "top": (lambda box: box[1], lambda box: box[1] + box[3]),
    "bottom": (lambda box: -box[3], lambda box: -box[1] - box[3]),
    "smallest": (lambda box: (box[2] - box[0]) * (box[3] - box[1]),),
    "largest": (lambda box: -(box[2] - box[0]) * (box[3] - box[1]),),
}


def fitting(expression: str, objects: dict[str, list[list[int]]]) -> list[list[int]]:
    """The boxes that an expression fits, by any of its readings."""
    match = EXPRESSION.fullmatch(expression)
    assert match is not None, expression
    boxes = []
    for category, of_category in objects.items():
        colour, kind = category.split()
        if match["colour"] in (None, colour) and match["kind"] in ("shape", kind):
            boxes += of_category
    order = match["place"] or match["order"]
    if order in (None, "only"):
        return boxes
    fit = []
    for reading in READINGS[SIDES.get(order, order)]:
        best = min(map(reading, boxes))
        fit += [box for box in boxes if reading(box) == best and box not in fit]
    return fit


def test_every_referring_expression_fits_its_box_and_no_other(data: Path, objects: Objects) -> None:
    forms, orders = set(), set()
    for record in read_lines(data / "ccmd/reg.jsonl"):
        several = isinstance(record["expression"], list)
        forms.add("list of expressions" if several else "one box" if isinstance(record["bboxes"][0], int) else "list")
        texts = record["expression"] if several else [record["expression"]]
        assert len(set(texts)) == len(texts)
        for text, box in zip(texts, boxes_in(record), strict=True):
            assert fitting(text, objects[record["image_path"]]) == [box], text
            orders |= {word for word in text.split() if word in ("only", "largest", "smallest", "far", "very")}
    assert forms == {"list of expressions", "one box", "list"}
    assert orders == {"only", "largest", "smallest", "far", "very"}


def test_grounding_names_all_boxes_of_a_look_one_or_none(data: Path, objects: Objects) -> None:
    counts = set()
    for record in read_lines(data / "ccmd/vg.jsonl"):
        singular = record["expression"]
        if singular.startswith("all "):
            singular = "the " + singular.removeprefix("all ").removesuffix("s").replace("crosse", "cross")
        expected = fitting(singular, objects[record["image_path"]])
        assert sorted(record["bboxes"]) == sorted(expected), record["expression"]
        counts.add(min(len(expected), 2))
    assert counts == {0, 1, 2}


def test_categories_asked_for_are_there_or_absent_as_stated(data: Path, objects: Objects) -> None:
    assert len(objects) == IMAGES
    for record in read_lines(data / "ccmd/randdet.jsonl"):
        asked = boxes_of(record)
        assert any(asked.values())
        assert not all(asked.values())
        assert all(objects[record["image_path"]].get(category, []) == boxes for category, boxes in asked.items())
    visual = {record["image_path"]: boxes_of(record) for record in read_lines(data / "ccmd/visj.jsonl")}
    assert visual == objects
    assert {min(len(boxes), 2) for asked in visual.values() for boxes in asked.values()} == {1, 2}


def test_captions_count_what_is_there(captions: Records, objects: Objects) -> None:
    number = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for record in captions:
        turns = [turn["value"].replace("<image>", "").strip() for turn in record["conversations"]]
        there = objects[record["image"]]
        for question, answer in zip(turns[::2], turns[1::2], strict=True):
            if record["id"].endswith("caption"):
                assert all(f"{number[len(boxes)]} {category}" in answer.lower() for category, boxes in there.items())
            elif found := re.fullmatch(r"How many (\w+) shapes do you see\?", question):
                count = sum(len(boxes) for category, boxes in there.items() if category.startswith(found[1]))
                assert answer.lower() == f"{number[count]}."
            elif found := re.fullmatch(r"Is there an? (.+)\?", question):
                assert answer == ("Yes." if found[1] in there else "No.")
            elif found := re.fullmatch(r"Of what colour and form is (.+)\?", question):
                category = re.sub(r"It is an? (.+)\.", r"\1", answer)
                assert fitting(found[1], there)[0] in there[category]


# --- of every form ---


def test_pictures_are_jpeg_png_and_webp_as_their_names_say(pictures: list[Path]) -> None:
    codings = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
    found = set()
    assert len(pictures) == IMAGES
    for path in pictures:
        with Image.open(path) as picture:
            assert codings[str(picture.format)] == path.suffix
            found.add(picture.format)
    assert found == set(codings)


def test_names_hold_blanks_and_chinese_in_files_and_folders(data: Path, pictures: list[Path]) -> None:
    names = [path.relative_to(data / "pictures") for path in pictures]
    assert all(" " in name.name and re.search("[\u4e00-\u9fff]", name.name) for name in names)
    assert any(re.search("[\u4e00-\u9fff]", name.parent.as_posix()) for name in names)
    assert any(" " in name.parent.as_posix() for name in names)
    assert any(len(name.parts) == 3 for name in names)


def test_the_manifest_names_every_annotation_and_none_is_empty(data: Path) -> None:
    text = (data / "manifest.txt").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line and not line.startswith("#")] == [
        "LAZY_caption & llava/captions.json & pictures",
        "LAZY_text & llava/text_only.jsonl & pictures",
        "DET_shapes & ccmd/det.jsonl & pictures",
        "RANDDET_shapes & ccmd/randdet.jsonl & pictures",
        "REG_shapes & ccmd/reg.jsonl & pictures",
        "VG_shapes & ccmd/vg.jsonl & pictures",
        "VISJ_shapes & ccmd/visj.jsonl & pictures",
    ]
    assert "#" in text


@pytest.mark.parametrize("images", [1, 2, IMAGES])
def test_no_task_is_without_records(tmp_path: Path, images: int) -> None:
    out = write_sample_data(tmp_path / "out", seed=3, images=images).parent
    for name in ("llava/text_only.jsonl", *(f"ccmd/{task}.jsonl" for task in CCMD)):
        assert len(read_lines(out / name)) >= images
    assert len(json.loads((out / "llava/captions.json").read_text(encoding="utf-8"))) >= images


def test_conversations_are_in_turn_with_the_picture_first_or_last(data: Path, captions: Records) -> None:
    texts = read_lines(data / "llava/text_only.jsonl")
    assert len({record["id"] for record in captions + texts}) == len(captions) + len(texts)
    for record in captions + texts:
        turns = record["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert all(turn["value"] for turn in turns)
        assert json.dumps(turns).count("<image>") == ("image" in record)
    questions = [record["conversations"][0]["value"] for record in captions]
    assert any(question.startswith("<image>\n") for question in questions)
    assert any(question.endswith("\n<image>") for question in questions)
    assert any(len(record["conversations"]) > 2 for record in captions)
    assert any(len(record["conversations"]) > 2 for record in texts)
    assert not any("image" in record for record in texts)


# --- what is refused ---


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path)) + ".* not empty.*another"):
        write_sample_data(tmp_path, seed=0, images=2)
    with pytest.raises(ValueError, match="is a file"):
        write_sample_data(tmp_path / "mine.txt", seed=0, images=2)
    assert tree(tmp_path) == {"mine.txt": b"mine"}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_sample_data(tmp_path, seed=0, images=1) == tmp_path / "manifest.txt"


def test_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        write_sample_data(tmp_path / "out", seed=0, images=0)
    assert not (tmp_path / "out").exists()
