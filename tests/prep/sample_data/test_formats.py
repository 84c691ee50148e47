"""The sample data in published formats, read with json and pickle alone: true to the scenes that were drawn."""

import json
import pickle
import pickletools
import re
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from griffon_prep.sample_data.files import write_pickle
from griffon_prep.sample_data.paint import paint
from griffon_prep.sample_data.scene import CATEGORIES, Scene, boxes_by_category, scene

from .test_truth import fitting

Fields = dict[str, Any]
Instances = tuple[dict[int, Fields], dict[int, Fields]]
Box = list[int]

SCENES = [scene(0, i) for i in range(48)]
SCENE_OF = {pictured.image_path: pictured for pictured in SCENES}


def read(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    return json.loads(path.read_text(encoding="utf-8"))


def corners(xywh: list[int]) -> Box:
    x, y, width, height = xywh
    return [x, y, x + width, y + height]


def shapes_of(pictured: Scene) -> list[tuple[str, Box]]:
    return [(shape.category, list(shape.box_xyxy_px)) for shape in pictured.shapes]


def boxes_of(pictured: Scene) -> dict[str, list[Box]]:
    return {category: [list(box) for box in boxes] for category, boxes in boxes_by_category(pictured).items()}


def fitting_any(phrase: str, pictured: Scene) -> list[Box]:
    """The boxes that `the red star`, `a red star` or `all red stars` may mean; for the latter two all that fit."""
    if phrase.startswith("all "):
        phrase = phrase.removesuffix("s").replace("crosse", "cross")
    return sorted(fitting(re.sub("^(all|an?) ", "the ", phrase), boxes_of(pictured)))


def annotated(data: Fields) -> dict[int, list[tuple[str, Box]]]:
    """Category and box of what is not a crowd, by image."""
    names = {category["id"]: category["name"] for category in data["categories"]}
    result: dict[int, list[tuple[str, Box]]] = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        if not annotation.get("iscrowd"):
            result[annotation["image_id"]].append((names[annotation["category_id"]], corners(annotation["bbox"])))
    return result


def instances(folder: Path) -> Instances:
    """Images and annotations of an `instances.json`, by their ids; all shapes are there and nothing else."""
    data = read(folder / "instances.json")
    shapes = annotated(data)
    assert len(data["images"]) == len(SCENES)
    assert all(shapes[image["id"]] == shapes_of(SCENE_OF[image["file_name"]]) for image in data["images"])
    images, annotations = ({item["id"]: item for item in data[name]} for name in ("images", "annotations"))
    assert (len(images), len(annotations)) == (len(data["images"]), len(data["annotations"]))
    return images, annotations


@pytest.mark.parametrize(
    "name", ["coco/instances.json", "lvis/lvis_v1_train.json", "mdetr/finetune_refcoco_train.json"]
)
def test_coco_files_hold_together(drawn_data: Path, name: str) -> None:
    data = read(drawn_data / name)
    for member in ("images", "annotations", "categories"):
        numbers = [item["id"] for item in data[member]]
        assert len(set(numbers)) == len(numbers) > 0
    numbers = [category["id"] for category in data["categories"]]
    assert [category["name"] for category in data["categories"]] == list(CATEGORIES)
    assert max(numbers) - min(numbers) > len(numbers)  # not contiguous, as in COCO
    assert {annotation["image_id"] for annotation in data["annotations"]} <= {image["id"] for image in data["images"]}


def test_coco_has_every_shape_and_crowds_around_many(drawn_data: Path) -> None:
    data = read(drawn_data / "coco/instances.json")
    names = {category["id"]: category["name"] for category in data["categories"]}
    shapes = annotated(data)
    crowds: dict[int, dict[str, Box]] = {image["id"]: {} for image in data["images"]}
    for annotation in data["annotations"]:
        if annotation["iscrowd"]:
            crowds[annotation["image_id"]][names[annotation["category_id"]]] = corners(annotation["bbox"])
    for image in data["images"]:
        pictured = SCENE_OF.get(image["file_name"])
        if pictured is None:
            continue
        assert (image["width"], image["height"]) == (pictured.width_px, pictured.height_px)
        assert shapes[image["id"]] == shapes_of(pictured)
        many = {category: np.array(boxes) for category, boxes in boxes_of(pictured).items() if len(boxes) >= 3}
        around = {name: [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)] for name, boxes in many.items()}
        assert crowds[image["id"]] == around
    assert sum(map(len, crowds.values())) > 5


def test_coco_has_images_without_anything(drawn_data: Path) -> None:
    data = read(drawn_data / "coco/instances.json")
    with_boxes = {annotation["image_id"] for annotation in data["annotations"]}
    empty = [image for image in data["images"] if image["id"] not in with_boxes]
    assert len(empty) == 3
    assert {image["file_name"] for image in data["images"]} - SCENE_OF.keys() == {item["file_name"] for item in empty}
    for number, image in zip((15, 31, 47), empty, strict=True):
        with Image.open(drawn_data / "pictures" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            if picture.format == "PNG":
                assert np.array_equal(np.asarray(picture), np.asarray(paint(replace(SCENES[number], shapes=()))))


def test_lvis_has_every_shape_and_absent_categories(drawn_data: Path) -> None:
    data = read(drawn_data / "lvis/lvis_v1_train.json")
    names = {category["id"]: category["name"] for category in data["categories"]}
    assert not any("iscrowd" in annotation for annotation in data["annotations"])
    shapes = annotated(data)
    not_exhaustive = 0
    for image, pictured in zip(data["images"], SCENES, strict=True):
        assert shapes[image["id"]] == shapes_of(pictured)
        negatives = {names[neg_category_id] for neg_category_id in image["neg_category_ids"]}
        assert negatives
        assert not negatives & boxes_of(pictured).keys()
        assert {names[neg_category_id] for neg_category_id in image["not_exhaustive_category_ids"]} <= boxes_of(
            pictured
        ).keys()
        not_exhaustive += len(image["not_exhaustive_category_ids"])
        assert "file_name" not in image
        actual = drawn_data / "lvis" / "/".join(image["coco_url"].split("/")[-2:])
        assert actual.read_bytes() == (drawn_data / "pictures" / pictured.image_path).read_bytes()
    assert not_exhaustive


def test_visual_genome_has_every_image_in_one_of_two_folders(drawn_data: Path) -> None:
    folder = drawn_data / "visual_genome"
    folders: Counter[str] = Counter()
    for image, pictured in zip(read(folder / "image_data.json"), SCENES, strict=True):
        assert (image["width"], image["height"]) == (pictured.width_px, pictured.height_px)
        parent, name = image["url"].split("/")[-2:]
        assert name == f"{image['image_id']}.jpg"
        assert (folder / parent / name).read_bytes() == (drawn_data / "pictures" / pictured.image_path).read_bytes()
        folders[parent] += 1
    assert folders == {"VG_100K": 24, "VG_100K_2": 24}


def test_visual_genome_names_every_shape(drawn_data: Path) -> None:
    as_written: Counter[bool] = Counter()
    for element, pictured in zip(read(drawn_data / "visual_genome/objects.json"), SCENES, strict=True):
        result = []
        for item in element["objects"]:
            name = item["names"][0]
            result.append((name.strip().lower(), corners([item["x"], item["y"], item["w"], item["h"]])))
            as_written[name in CATEGORIES] += 1
        assert result == shapes_of(pictured)
    assert as_written[True] > as_written[False] > 5


def test_visual_genome_describes_regions_truly(drawn_data: Path) -> None:
    several = 0
    for element, pictured in zip(read(drawn_data / "visual_genome/region_descriptions.json"), SCENES, strict=True):
        by_phrase: dict[str, list[Box]] = {}
        for region in element["regions"]:
            assert region["image_id"] == element["id"]
            box = corners([region["x"], region["y"], region["width"], region["height"]])
            by_phrase.setdefault(region["phrase"], []).append(box)
        assert len(by_phrase) > 1
        assert all(sorted(boxes) == fitting_any(phrase, pictured) for phrase, boxes in by_phrase.items())
        several += any(len(boxes) > 1 for boxes in by_phrase.values())
    assert several > 10


def test_refcoco_refers_to_one_shape_in_several_sentences(drawn_data: Path) -> None:
    refs = pickle.loads((drawn_data / "refcoco/refs(unc).p").read_bytes())
    images, annotations = instances(drawn_data / "refcoco")
    splits: dict[str, set[int]] = {}
    for ref in refs:
        annotation, image = annotations[ref["ann_id"]], images[ref["image_id"]]
        assert (annotation["image_id"], annotation["category_id"]) == (ref["image_id"], ref["category_id"])
        assert (drawn_data / "pictures" / image["file_name"]).is_file()
        stem, _, suffix = image["file_name"].rpartition(".")
        assert ref["file_name"] == f"{stem}_{ref['ann_id']}.{suffix}"
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        for sentence in ref["sentences"]:
            assert fitting_any(sentence["sent"], SCENE_OF[image["file_name"]]) == [corners(annotation["bbox"])]
            assert sentence["tokens"] == sentence["sent"].split()
            assert sentence["raw"].lower() == f"{sentence['sent']}."
        splits.setdefault(ref["split"], set()).add(ref["image_id"])
    assert {len(ref["sentences"]) for ref in refs} == {1, 2, 3}
    assert splits.keys() == {"train", "val", "testA"}
    assert sum(map(len, splits.values())) == len(SCENES)  # no image is of two
    for numbers in ([ref["ref_id"] for ref in refs], [sent_id for ref in refs for sent_id in ref["sent_ids"]]):
        assert len(set(numbers)) == len(numbers)


def test_the_pickle_holds_plain_data_and_no_references(drawn_data: Path) -> None:
    raw = (drawn_data / "refcoco/refs(unc).p").read_bytes()
    used = {code.name for code, _, _ in pickletools.genops(raw)}
    containers = {"PROTO", "EMPTY_LIST", "EMPTY_DICT", "MARK", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "STOP"}
    assert used <= containers | {"BINUNICODE", "BININT", "BININT1", "BININT2"}


def test_the_bytes_of_a_pickle_are_those_of_its_content(tmp_path: Path) -> None:
    word = "star"
    same: list[Fields] = [{word: [word, word], "n": 300}, {word: []}]
    write_pickle(tmp_path / "same.p", same)
    write_pickle(tmp_path / "other.p", [json.loads(json.dumps(record)) for record in deepcopy(same)])
    raw = (tmp_path / "same.p").read_bytes()
    assert raw == (tmp_path / "other.p").read_bytes()
    text = b"X\x04\0\0\0star"
    assert raw == b"\x80\x02]}(" + text + b"](" + text + text + b"eX\x01\0\0\0nM\x2c\x01ua}" + text + b"]sa."
    assert pickle.loads(raw) == same


def test_grefcoco_refers_to_several_shapes_one_or_none(drawn_data: Path) -> None:
    images, annotations = instances(drawn_data / "grefcoco")
    counts = set()
    for ref in read(drawn_data / "grefcoco/grefs(unc).json"):
        pictured = SCENE_OF[images[ref["image_id"]]["file_name"]]
        meant = [] if ref["ann_id"] == [-1] else [annotations[number] for number in ref["ann_id"]]
        assert all(annotation["image_id"] == ref["image_id"] for annotation in meant)
        assert ref["no_target"] == (not meant)
        assert ref["category_id"] == ([annotation["category_id"] for annotation in meant] or [-1])
        for sentence in ref["sentences"]:
            boxes = sorted(corners(annotation["bbox"]) for annotation in meant)
            assert boxes == fitting_any(sentence["sent"], pictured), sentence["sent"]
            assert sentence["exist"] == bool(meant)
        counts.add(min(len(meant), 2))
    assert counts == {0, 1, 2}


def test_mdetr_has_refcocos_sentences_of_train(drawn_data: Path) -> None:
    data = read(drawn_data / "mdetr/finetune_refcoco_train.json")
    boxes = {annotation["image_id"]: corners(annotation["bbox"]) for annotation in data["annotations"]}
    assert len(boxes) == len(data["annotations"]) == len(data["images"])
    for image in data["images"]:
        assert fitting_any(image["caption"], SCENE_OF[image["file_name"]]) == [boxes[image["id"]]]
    assert all(item["tokens_positive"][0][0] == 0 for item in data["annotations"])
    refs = pickle.loads((drawn_data / "refcoco/refs(unc).p").read_bytes())
    sentences = [sentence["sent"] for ref in refs if ref["split"] == "train" for sentence in ref["sentences"]]
    assert [image["caption"] for image in data["images"]] == sentences
