"""MDETR's `finetune_refcoco_train.json` and its like: COCO's JSON, an expression an entry of `images`."""

import json
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record
from griffon_shards.support.errors import DataError, SettingsError

from ..rendering import rendered, texts
from .published import box, coco, picture, write
from .reading import read_source

ONE, TWO = (10.0, 20.0, 40.0, 60.0), (100.0, 0.0, 150.0, 50.0)
FILE = "COCO_train2014_7.jpg"


def entry(number: object, caption: object, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return picture(
        number, **{"file_name": FILE, "original_id": 7, "caption": caption, "dataset_name": "refcoco", **more}
    )


def tied(number: int, image_id: object, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return box(number, image_id, tokens_positive=[[0, 3]], **more)


def read(folder: Path, file: object, task: str = "VG", **options: str) -> list[Record | tuple[str, str]]:
    return read_source(write(folder, {"finetune_refcoco_train.json": file}), task, **options)[0]


def found(records: list[Record | tuple[str, str]]) -> list[list[tuple[str, tuple[float, ...]]] | str]:
    return [
        [(region.phrase, region.box_xyxy_px) for region in record.regions] if isinstance(record, Record) else record[0]
        for record in records
    ]


SOURCE = coco(
    [entry(0, " the left cat "), entry(1, "猫"), entry(2, "both"), entry(3, "nothing")],
    [tied(9, 2), tied(0, 0), tied(1, 1, bbox=[100, 0, 50, 50]), tied(2, 2, bbox=[100, 0, 50, 50], iscrowd=1)],
)
"""The boxes lie in another order than the expressions, and the last expression has none."""


@pytest.mark.parametrize("first", ["images", "annotations"])
@pytest.mark.parametrize("indent", [None, 1])
def test_each_expression_is_a_record(tmp_path: Path, first: str, indent: int | None) -> None:
    text = json.dumps({first: SOURCE[first], **SOURCE}, indent=indent)
    records = read(tmp_path, text)
    assert found(records) == [
        [("the left cat", ONE)],
        [("猫", TWO)],
        [("both", ONE), ("both", TWO)],
        "bad_record",  # nothing in the file says that it is absent
    ]
    assert "'nothing' has no box" in records[3][1]  # type: ignore[index]
    assert {(r.image_path, r.width_px, r.height_px) for r in records if isinstance(r, Record)} == {(FILE, 200, 100)}


def test_reg_describes_one_box(tmp_path: Path) -> None:
    records, scan = read_source(write(tmp_path, {"a.json": SOURCE}), "REG")
    assert found(records) == [[("the left cat", ONE)], [("猫", TWO)]]
    assert [record.record_no for record in records if isinstance(record, Record)] == [0, 1]
    assert scan.notes == ("2 of 4 expressions skipped: REG needs exactly one box",)


@pytest.mark.parametrize("task", ["REG", "VG"])
@pytest.mark.parametrize(
    ("image", "annotation"),
    [
        ({"caption": None}, {}),
        ({"caption": " "}, {}),
        ({"caption": ["a"]}, {}),
        ({"width": "200"}, {}),
        ({"file_name": None}, {}),
        ({}, {"bbox": [1, 2]}),
    ],
)
def test_what_cannot_be_used_is_rejected_alone(
    tmp_path: Path, task: str, image: dict[str, Any], annotation: dict[str, Any]
) -> None:
    images = [entry(0, "one"), {**entry(1, "spoilt"), **image}, entry(2, "two")]
    file = coco(images, [tied(0, 0), tied(1, 1, **annotation), tied(2, 2)])
    assert found(read(tmp_path, file, task)) == [[("one", ONE)], "bad_record", [("two", ONE)]]


def grounded(number: int, image_id: int, spans: object, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return box(number, image_id, tokens_positive=spans, **more)


TWO_BOXES = {"bbox": [100, 0, 50, 50]}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("more", [{}, {"iscrowd": None}])
def test_boxes_of_parts_of_a_caption_make_a_record_each(
    tmp_path: Path, indent: int | None, more: dict[str, Any]
) -> None:
    """Flickr30k and GQA have such files. A caption without boxes has nothing to ask for."""
    images = [
        entry(0, "a dog"),
        entry(1, "two dogs and a cat , a cat"),
        entry(2, "a cow by the sea"),
        entry(3, "a cow"),
    ]
    boxes = [
        grounded(1, 1, [[0, 8]]),
        grounded(2, 2, [[0, 5], [9, 16]]),
        grounded(3, 1, [[0, 8], [13, 18]], **TWO_BOXES, **more),
        grounded(4, 0, [[2, 5]]),
        grounded(5, 1, [[21, 26]], **more),
    ]
    file = json.dumps(coco(images, boxes), indent=indent)
    records, scan = read_source(write(tmp_path, {"a.json": file}), "VG")
    assert found(records) == [
        [("dog", ONE)],
        [("two dogs", ONE), ("two dogs", TWO)],
        [("a cat", TWO), ("a cat", ONE)],  # two parts of the same words cannot be told apart
        [("a cow", ONE)],
        [("the sea", ONE)],
    ]
    assert scan.notes == (
        "boxes belong to parts of the captions (tokens_positive), so each part is an expression",
        "1 of 4 captions skipped for lack of a box",
    )
    records, scan = read_source(write(tmp_path, {"a.json": file}), "REG")
    assert found(records) == [[("dog", ONE)], [("a cow", ONE)], [("the sea", ONE)]]
    assert scan.notes[-1] == "2 of 5 expressions skipped: REG needs exactly one box"
    assert scan.round_keys is not None
    assert len(scan.round_keys) == 3


@pytest.mark.parametrize("task", ["REG", "VG"])
@pytest.mark.parametrize(
    "spans", [None, [], [[0, 99]], [[-1, 3]], [[3, 3]], [[0, 2.5]], [[1, 2]], [[True, 5]], {"a": 1}]
)
def test_a_caption_with_a_box_of_an_unknown_part_is_rejected_alone(tmp_path: Path, task: str, spans: object) -> None:
    """Any part of it may lack that box."""
    images = [entry(0, "a dog and a cat"), entry(1, "a dog and a cat")]
    boxes = [grounded(number, image, part) for number, image, part in ((0, 0, [[0, 5]]), (1, 0, [[10, 15]]))]
    boxes += [grounded(2, 1, [[0, 5]]), grounded(3, 1, spans)]
    records = read(tmp_path, coco(images, boxes), task)
    assert found(records) == [[("a dog", ONE)], [("a cat", ONE)], "bad_record"]
    assert "tokens_positive" in records[2][1]  # type: ignore[index]


@pytest.mark.parametrize(
    "spans", [[[[0, 3]], [[0, 3]]], [[], []], [None, None], [[[0, 3], [4, 6]], [[0, 3], [4, 6]]]], ids=str
)
@pytest.mark.parametrize("more", [{}, {"iscrowd": None}])
def test_boxes_of_the_same_part_are_of_the_whole_caption(
    tmp_path: Path, spans: list[object], more: dict[str, None]
) -> None:
    """RefCOCO's name but the noun of each expression."""
    boxes = [grounded(1, 0, spans[0]), grounded(2, 0, spans[1], bbox=[100, 0, 50, 50], **more), box(3, 1)]
    for file in (coco([entry(0, "men on the left"), entry(1, "a")], boxes[:count]) for count in (3, 2)):
        assert found(read(tmp_path, file))[0] == [("men on the left", ONE), ("men on the left", TWO)]


NOTHING = {"area": -1, "iscrowd": -1, "category_id": -1, "bbox": [0, 0, 0, 0], "empty": True, "original_id": -1}


@pytest.mark.parametrize("more", [{}, {"empty": 1}, {"bbox": []}, {"iscrowd": 0, "id": "x"}])
def test_an_expression_of_nothing_is_absent(tmp_path: Path, more: dict[str, Any]) -> None:
    """gRefCOCO in MDETR's form."""
    images = [entry(0, "a zebra"), entry(1, "the cat"), entry(2, "both"), entry(3, "it")]
    boxes = [
        tied(0, 0, **NOTHING | more),
        tied(1, 1, empty=False),
        *(tied(2, 2, empty=False), tied(3, 2, empty=False, bbox=[100, 0, 50, 50])),
        *(tied(4, 3, empty=False), tied(5, 3, **NOTHING)),
    ]
    records = read(tmp_path, coco(images, boxes))
    assert found(records) == [[], [("the cat", ONE)], [("both", ONE), ("both", TWO)], "bad_record"]
    assert records[3][1] == f"{FILE}: 'it' has a box and is also marked as absent (empty)"  # type: ignore[index]
    assert isinstance(records[0], Record)
    assert records[0].absent_phrases == ("a zebra",)
    assert texts(rendered("VG", records[0])[0])[1] == "None"
    assert found(read(tmp_path, coco(images[:3], boxes[:4]), "REG")) == [[("the cat", ONE)]]
    as_coco = read(tmp_path, coco(images[:3], boxes[:4]), "DET", format="coco")
    assert [len(record.regions) for record in as_coco if isinstance(record, Record)] == [0, 1, 2]


def test_the_categories_need_not_be_known(tmp_path: Path) -> None:
    """The expression is the phrase; MDETR's files name but the category `object`."""
    file = coco([entry(0, "one")], [tied(0, 0, category_id=99)], [{"id": 1, "name": "object"}])
    assert found(read(tmp_path, file)) == [[("one", ONE)]]


def test_detection_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="format mdetr supports REG, VG, not DET"):
        read(tmp_path, SOURCE, "DET")


def test_a_file_named_as_coco_is_read_as_coco(tmp_path: Path) -> None:
    records = read(tmp_path, SOURCE, "DET", format="coco")
    assert [len(record.regions) for record in records if isinstance(record, Record)] == [1, 1, 2, 0]


def test_two_expressions_of_the_same_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two entries of images have the same id 0"):
        read(tmp_path, coco([entry(0, "one"), entry(0, "two")], [tied(0, 0)]))


def test_expressions_of_an_image_are_known_as_such(tmp_path: Path) -> None:
    """For `rounds=`, expressions are grouped by the file that they name; one that names none shares no image."""
    images = [entry(0, "a"), entry(1, "b", file_name="8.jpg"), entry(2, "c"), entry(3, "d", file_name=None)]
    images += [entry(4, "e", file_name=None), entry(5, "f"), entry(6, "g"), entry(7, "h")]
    for position, url in (
        (5, "http://x/train2014/7.jpg"),
        (6, "http://x/train2014/8.jpg"),
        (7, "http://y/train2014/7.jpg"),
    ):
        del images[position]["file_name"]
        images[position]["coco_url"] = url
    file = coco(images, [tied(i, i) for i in range(8)])
    _, scan = read_source(write(tmp_path, {"m.json": file}), "VG", rounds="4")
    assert scan.round_keys is not None
    first_of = [scan.round_keys.images.index(key) for key in scan.round_keys.images]
    assert first_of == [0, 1, 0, 3, 4, 5, 6, 5]
