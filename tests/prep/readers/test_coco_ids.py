"""Ids as files have them: numbers, texts, both, none. Boxes find their images, or the reason is reported."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record
from griffon_shards.support.errors import DataError

from .published import box, coco, picture, ref, write
from .reading import read_source

CAT, CORNERS = "cat", (10.0, 20.0, 40.0, 60.0)
TEXTS = ["000a1b", "2007_000027", "图 7", "7e3", "1-7", "9" * 30, "-", "img.jpg"]
SPELLINGS: list[tuple[object, object]] = [
    ("7", "7"),
    ("7", 7),
    (7, "7"),
    (7.0, "7"),
    (7, "000000000007"),
    ("007", 7.0),
    ("7.0", 7),
    (" 7 ", "07"),
    (2**63, str(2**63)),
    (str(2**62 + 1), 2**62 + 1),
    (2**64 - 1, 2**64 - 1),
    *((text, text) for text in TEXTS),
]
NO_IDS: list[object] = [None, True, [7], {}, 7.5, 1e300, float("nan"), "", "  "]


def read(folder: Path, file: object, task: str = "DET") -> list[Record | tuple[str, str]]:
    return read_source(write(folder, {"instances.json": file}), task)[0]


def found(records: list[Record | tuple[str, str]]) -> list[list[tuple[str, tuple[float, ...]]] | str]:
    """Regions of each record, or why it is rejected."""
    return [
        [(region.phrase, region.box_xyxy_px) for region in record.regions]
        if isinstance(record, Record)
        else ": ".join(record)
        for record in records
    ]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("of_image", "of_box"), SPELLINGS)
def test_boxes_find_their_image_and_category(
    tmp_path: Path, of_image: object, of_box: object, indent: int | None
) -> None:
    """In a complete file, and where one image and one box are written differently from the others."""
    many = range(100, 130)
    pictures = [picture(of_image, file_name="a.jpg"), *(picture(number) for number in many)]
    boxes = [box(1, of_box, of_box), *(box(number, number, 5) for number in many)]
    categories = [{"id": of_image, "name": CAT}, {"id": 5, "name": "dog"}]
    records = read(tmp_path, json.dumps(coco(pictures, boxes, categories), indent=indent))
    assert found(records) == [[(CAT, CORNERS)], *([("dog", CORNERS)] for _ in many)]


@pytest.mark.parametrize("number", NO_IDS)
def test_an_image_without_an_id_is_not_called_empty(tmp_path: Path, number: object) -> None:
    pictures = [picture(1), picture(number, file_name="x.jpg"), picture(3)]
    records = read(tmp_path, coco(pictures, [box(1, 1), box(2, number), box(3, 3)]))
    assert [isinstance(record, Record) for record in records] == [True, False, True]
    assert records[1][0] == "bad_record"  # type: ignore[index]
    assert records[1][1].startswith("id: expected text or a whole number, got ")  # type: ignore[index]
    (rejected,) = found(read(tmp_path, coco([{"file_name": "x.jpg", "width": 1, "height": 1}])))
    assert rejected == "bad_record: id: expected text or a whole number, got None"


@pytest.mark.parametrize("number", NO_IDS)
def test_boxes_that_name_no_image_are_counted(tmp_path: Path, number: object) -> None:
    annotations = [box(1), box(2, number), {"id": 3}, 5]
    records, scan = read_source(write(tmp_path, {"i.json": coco(annotations=annotations)}), "DET")
    assert found(records) == [[(CAT, CORNERS)]]
    assert scan.notes == (
        "annotations whose image_id is neither text nor a whole number, skipped: 3 (the first is annotation 2)",
    )


@pytest.mark.parametrize(
    ("number", "example"),
    [
        (8, "annotation 2, image_id 8"),
        ("8", "annotation 2, image_id 8"),
        ("7.jpg", "annotation 2"),
        ("x", "annotation 2"),
    ],
)
def test_boxes_of_other_images_are_counted(tmp_path: Path, number: object, example: str) -> None:
    records, scan = read_source(write(tmp_path, {"i.json": coco(annotations=[box(1), box(2, number)])}), "DET")
    assert found(records) == [[(CAT, CORNERS)]]
    assert scan.notes == (f"annotations whose image_id is not in images, skipped: 1 (the first is {example})",)


@pytest.mark.parametrize("spelling", ["+8", "7e0", "８.", "8.jpg", [8], None, True])
def test_ids_unlike_every_image_are_refused_where_an_image_has_no_box(tmp_path: Path, spelling: object) -> None:
    file = coco([picture(7), picture(8)], [box(1, 7), box(2, spelling)])
    with pytest.raises(DataError, match=r"image_id: 1 annotation has .* \(the first is annotation 2\)"):
        read_source(write(tmp_path, {"i.json": file}), "DET")


@pytest.mark.parametrize(("one", "other"), [(7, "7"), ("7", "007"), (7.0, 7), ("a", "a"), (2**63, str(2**63))])
def test_images_of_one_id_cannot_be_distinguished(tmp_path: Path, one: object, other: object) -> None:
    with pytest.raises(DataError, match=r"two entries of images have the same id.* \(entries 0 and 2, "):
        read(tmp_path, coco([picture(one), picture(8), picture(other)]))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"category_id": 99}, "annotation 12: category_id: 99 is not in categories"),
        ({"category_id": "lion"}, "annotation 12: category_id: 'lion' is not in categories"),
        ({"category_id": 2**63}, f"annotation 12: category_id: {2**63} is not in categories"),
        ({"category_id": None}, "annotation 12: category_id: expected text or a whole number"),
        ({"category_id": 4}, "annotation 12: category_id: 4 is not in categories, or has no name there"),
        ({"bbox": [1, 2, 3]}, "annotation 12: bbox: expected four numbers, got [1, 2, 3]"),
        ({"bbox": ["1", 2, 3, 4]}, "annotation 12: bbox: expected four numbers, got ['1', 2, 3, 4]"),
        ({"iscrowd": "no"}, "annotation 12: iscrowd: expected 0 or 1, got 'no'"),
        ({"id": "x", "bbox": None}, "annotation 'x': bbox: expected four numbers, got None"),
    ],
)
@pytest.mark.parametrize("task", ["DET", "VISJ"])
def test_a_reject_names_image_annotation_and_value(
    tmp_path: Path, task: str, annotation: dict[str, Any], message: str
) -> None:
    boxes = [box(10, 7), box(11, 8), {**box(12, 8), **annotation}, box(13, 8)]
    categories = [{"id": 17, "name": CAT}, {"id": 4, "name": " "}]
    records = read(tmp_path, coco([picture(7), picture(8, file_name="train/8.jpg")], boxes, categories), task)
    assert found(records)[0] == [(CAT, CORNERS)]
    assert found(records)[1].startswith(f"bad_record: train/8.jpg: {message}")  # type: ignore[union-attr]


def test_a_reject_of_an_entry_names_it(tmp_path: Path) -> None:
    pictures = [picture(7, file_name="a/7.jpg", width=None), picture("x8", file_name=None)]
    assert found(read(tmp_path, coco(pictures))) == [
        "bad_record: a/7.jpg: width: expected a whole number of pixels above 0, got None",
        "bad_record: image id 'x8': file_name: expected text, got None",
    ]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
@pytest.mark.parametrize("as_json", [False, True])
def test_references_find_images_and_boxes(tmp_path: Path, one: object, other: object, as_json: bool) -> None:
    refs = [ref([one], "the cat", image_id=one, no_target=False)]
    content = json.dumps(refs) if as_json else pickle.dumps(refs)
    instances = coco([picture(other, file_name="a.jpg")], [box(other, other)])
    records, _ = read_source(write(tmp_path, {"refs(unc).p": content, "instances.json": instances}), "VG")
    assert found(records) == [[("the cat", CORNERS)]]


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"image_id": "x9"}, "image_id: 'x9' is not in instances.json"),
        ({"ann_id": "x9"}, "ann_id: 'x9' is not in instances.json"),
        ({"ann_id": [1, "9"]}, "ann_id: '9' is not in instances.json"),
        ({"image_id": "008"}, "ann_id: 1 belongs to another image than image_id '008'"),
    ],
)
def test_references_that_point_nowhere_show_the_id(tmp_path: Path, spoilt: dict[str, Any], message: str) -> None:
    files = {
        "refs(unc).p": pickle.dumps([{**ref(1, "the cat"), **spoilt}]),
        "instances.json": coco([picture(7), picture(8)]),
    }
    ((reason, detail),) = read_source(write(tmp_path, files), "VG")[0]  # type: ignore[misc]
    assert (reason, detail[: len(message)]) == ("bad_record", message)


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
@pytest.mark.parametrize("task", ["REG", "VG"])
def test_captions_find_their_boxes(tmp_path: Path, task: str, one: object, other: object) -> None:
    file = coco([picture(one, file_name="a.jpg", caption="the cat")], [box(1, other)])
    assert found(read(tmp_path, file, task)) == [[("the cat", CORNERS)]]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
@pytest.mark.parametrize("field", ["id", "image_id"])
def test_regions_find_their_image(tmp_path: Path, field: str, one: object, other: object) -> None:
    region = {"x": 10, "y": 20, "width": 30, "height": 40, "phrase": "a cat"}
    files = {
        "region_descriptions.json": [{field: one, "regions": [region]}, {field: "gone", "regions": [region]}],
        "image_data.json": [{"image_id": other, "width": 200, "height": 100, "url": "http://x/VG_100K/1.jpg"}],
    }
    records, _ = read_source(write(tmp_path, files), "VG")
    assert found(records) == [[("a cat", CORNERS)], f"bad_record: {field}: 'gone' is not in image_data.json"]
