"""The sample data's own formats, `llava` and `ccmd`: true to the images and to each other."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from griffon_prep.sample_data.paint import paint
from griffon_prep.sample_data.scene import scene

Records = list[dict[str, Any]]
Objects = dict[str, dict[str, list[list[int]]]]

IMAGES = 48
CCMD = ("det", "randdet", "reg", "vg", "visj")
SCENES = [scene(7, i) for i in range(24)]


@pytest.fixture(scope="module")
def objects(drawn_data: Path) -> Objects:
    """The objects and their boxes in each image, from the detection annotation."""
    return {record["image_path"]: boxes_of(record) for record in read_lines(drawn_data / "ccmd/det.jsonl")}


@pytest.fixture(scope="module")
def captions(drawn_data: Path) -> Records:
    records: Records = json.loads((drawn_data / "llava/captions.json").read_text(encoding="utf-8"))
    return records


def read_lines(path: Path) -> Records:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def boxes_of(record: dict[str, Any]) -> dict[str, list[list[int]]]:
    return {item["category_name"]: item["bboxes"] for item in record["objects"]}


def boxes_in(record: dict[str, Any]) -> list[list[int]]:
    """All boxes of a record of any task; `bboxes` may be one box."""
    if "objects" in record:
        return [box for boxes in boxes_of(record).values() for box in boxes]
    boxes: list[Any] = record["bboxes"]
    return [boxes] if boxes and isinstance(boxes[0], int) else boxes


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


# --- true to the images ---


def test_boxes_bound_exactly_what_is_painted() -> None:
    seen = set()
    for pictured in SCENES:
        empty = paint(replace(pictured, shapes=()))
        for shape in pictured.shapes:
            changed = differs(paint(replace(pictured, shapes=(shape,))), empty)
            assert bounds(changed) == list(shape.box_xyxy_px), (pictured.number, shape)
            seen.add(shape.kind)
    assert len(seen) == 10


def test_annotated_boxes_are_those_of_the_written_images(drawn_data: Path) -> None:
    checked = 0
    for index, record in enumerate(read_lines(drawn_data / "ccmd/det.jsonl")):
        if not record["image_path"].endswith(".png"):  # the others change every pixel a little
            continue
        with Image.open(drawn_data / "pictures" / record["image_path"]) as picture:
            changed = differs(picture, paint(replace(scene(0, index), shapes=())))
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


def test_every_annotated_image_exists_with_the_stated_size(
    drawn_data: Path, captions: Records, objects: Objects
) -> None:
    sizes = set()
    for task in CCMD:
        for record in read_lines(drawn_data / f"ccmd/{task}.jsonl"):
            with Image.open(drawn_data / "pictures" / record["image_path"]) as picture:
                assert picture.size == (record["width"], record["height"])
            for x1, y1, x2, y2 in boxes_in(record):
                assert 0 <= x1 < x2 <= record["width"]
                assert 0 <= y1 < y2 <= record["height"]
            sizes.add((record["width"], record["height"]))
    assert all((drawn_data / "pictures" / record["image"]).is_file() for record in captions)
    assert {record["image"] for record in captions} == set(objects)
    assert len(sizes) > IMAGES / 2
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    assert all(160 <= side <= 700 for size in sizes for side in size)
    assert any(side % 2 for size in sizes for side in size)


# --- true to each other ---

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


def test_every_referring_expression_fits_its_box_and_no_other(drawn_data: Path, objects: Objects) -> None:
    forms, orders = set(), set()
    for record in read_lines(drawn_data / "ccmd/reg.jsonl"):
        several = isinstance(record["expression"], list)
        forms.add("list of expressions" if several else "one box" if isinstance(record["bboxes"][0], int) else "list")
        texts = record["expression"] if several else [record["expression"]]
        assert len(set(texts)) == len(texts)
        for text, box in zip(texts, boxes_in(record), strict=True):
            assert fitting(text, objects[record["image_path"]]) == [box], text
            orders |= {word for word in text.split() if word in ("only", "largest", "smallest", "far", "very")}
    assert forms == {"list of expressions", "one box", "list"}
    assert orders == {"only", "largest", "smallest", "far", "very"}


def test_grounding_names_all_boxes_of_a_look_one_or_none(drawn_data: Path, objects: Objects) -> None:
    counts = set()
    for record in read_lines(drawn_data / "ccmd/vg.jsonl"):
        singular = record["expression"]
        if singular.startswith("all "):
            singular = "the " + singular.removeprefix("all ").removesuffix("s").replace("crosse", "cross")
        expected = fitting(singular, objects[record["image_path"]])
        assert sorted(record["bboxes"]) == sorted(expected), record["expression"]
        counts.add(min(len(expected), 2))
    assert counts == {0, 1, 2}


def test_categories_asked_for_are_there_or_absent_as_stated(drawn_data: Path, objects: Objects) -> None:
    assert len(objects) == IMAGES
    for record in read_lines(drawn_data / "ccmd/randdet.jsonl"):
        asked = boxes_of(record)
        assert any(asked.values())
        assert not all(asked.values())
        assert all(objects[record["image_path"]].get(category, []) == boxes for category, boxes in asked.items())
    visual = {record["image_path"]: boxes_of(record) for record in read_lines(drawn_data / "ccmd/visj.jsonl")}
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
            elif match := re.fullmatch(r"How many (\w+) shapes do you see\?", question):
                count = sum(len(boxes) for category, boxes in there.items() if category.startswith(match[1]))
                assert answer.lower() == f"{number[count]}."
            elif match := re.fullmatch(r"Is there an? (.+)\?", question):
                assert answer == ("Yes." if match[1] in there else "No.")
            elif match := re.fullmatch(r"Of what colour and form is (.+)\?", question):
                category = re.sub(r"It is an? (.+)\.", r"\1", answer)
                assert fitting(match[1], there)[0] in there[category]


def test_conversations_are_in_turn_with_the_image_first_or_last(drawn_data: Path, captions: Records) -> None:
    texts = read_lines(drawn_data / "llava/text_only.jsonl")
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
