"""The `ccmd` format: every form that the table of formats names, and what is wrong told by field."""

from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record, Region
from griffon_shards.types import BoxXYXY

from .reading import read_all, read_file, write_lines

IMAGE: dict[str, Any] = {"image_path": "文件 夹/a.jpg", "height": 48, "width": 64}
BOX: list[float] = [1, 2.5, 30, 40]
OTHER: list[float] = [5, 6, 7, 8]
DETECTED = {
    **IMAGE,
    "dataset_name": "X",
    "objects": [
        {"category_name": "cat", "bboxes": [BOX, OTHER]},
        {"category_name": "zebra", "bboxes": []},
        {"category_name": " 狗 ", "bboxes": [BOX]},
    ],
}


def regions(*items: tuple[str, list[float]]) -> tuple[Region, ...]:
    return tuple(Region(phrase=phrase, box_xyxy_px=(box[0], box[1], box[2], box[3])) for phrase, box in items)


def expected(record_no: int, result: tuple[Region, ...], absent: tuple[str, ...] = ()) -> Record:
    return Record(
        record_no=record_no,
        image_path="文件 夹/a.jpg",
        width_px=64,
        height_px=48,
        regions=result,
        absent_phrases=absent,
    )


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_objects(tmp_path: Path, task: str) -> None:
    (record,) = read_all(tmp_path, task, [DETECTED])
    assert record == expected(0, regions(("cat", BOX), ("cat", OTHER), ("狗", BOX)), ("zebra",))


def test_a_category_that_is_repeated_with_boxes_is_not_absent(tmp_path: Path) -> None:
    objects = [
        {"category_name": "cat", "bboxes": []},
        {"category_name": "dog", "bboxes": []},
        {"category_name": "cat", "bboxes": [BOX]},
        {"category_name": "dog", "bboxes": []},
    ]
    (record,) = read_all(tmp_path, "RANDDET", [{**IMAGE, "objects": objects}])
    assert record == expected(0, regions(("cat", BOX)), ("dog",))


def test_an_image_without_objects_is_a_record(tmp_path: Path) -> None:
    assert read_all(tmp_path, "DET", [{**IMAGE, "objects": []}]) == [expected(0, ())]


@pytest.mark.parametrize("boxes", [BOX, [BOX]])
def test_reg_takes_one_box_or_a_list_of_one(tmp_path: Path, boxes: list[Any]) -> None:
    line = {**IMAGE, "expression": "the left one", "bboxes": boxes}
    assert read_all(tmp_path, "REG", [line]) == [expected(0, regions(("the left one", BOX)))]


@pytest.mark.parametrize("boxes", [[BOX, OTHER, BOX], [[BOX], [OTHER], [BOX]]])
def test_a_list_of_expressions_is_as_many_records(tmp_path: Path, boxes: list[Any]) -> None:
    single = {**IMAGE, "expression": "one", "bboxes": OTHER}
    many = {**IMAGE, "expression": ["a", "b", " c "], "bboxes": boxes}
    assert read_all(tmp_path, "REG", [single, many, single]) == [
        expected(0, regions(("one", OTHER))),
        expected(1, regions(("a", BOX))),
        expected(2, regions(("b", OTHER))),
        expected(3, regions(("c", BOX))),
        expected(4, regions(("one", OTHER))),
    ]


def test_four_expressions_have_four_boxes(tmp_path: Path) -> None:
    line = {**IMAGE, "expression": list("abcd"), "bboxes": [BOX, OTHER, BOX, OTHER]}
    boxes = [BOX, OTHER, BOX, OTHER]
    assert read_all(tmp_path, "REG", [line]) == [expected(i, regions(("abcd"[i], boxes[i]))) for i in range(4)]


@pytest.mark.parametrize(
    ("boxes", "found"), [([], []), ([BOX], [BOX]), (BOX, [BOX]), ([BOX, OTHER, BOX, OTHER], [BOX, OTHER, BOX, OTHER])]
)
def test_vg_takes_any_number_of_boxes(tmp_path: Path, boxes: list[Any], found: list[list[float]]) -> None:
    line = {**IMAGE, "expression": "a man", "bboxes": boxes, "discrete_ids": [1, 2]}
    absent = () if found else ("a man",)
    assert read_all(tmp_path, "VG", [line]) == [expected(0, regions(*(("a man", box) for box in found)), absent)]


def test_a_box_keeps_its_value(tmp_path: Path) -> None:
    line = (
        '{"image_path":"a","height":9,"width":9.0,"expression":"x","bboxes":[[0.1234567890123456789,-1e-7,1e300,%d]]}'
    )
    (record,) = read_all(tmp_path, "VG", [line % (2**60)])
    assert isinstance(record, Record)
    assert record.regions[0].box_xyxy_px == (0.12345678901234568, -1e-7, 1e300, float(2**60))
    assert all(isinstance(value, float) for value in record.regions[0].box_xyxy_px)
    assert (record.width_px, type(record.width_px)) == (9, int)


@pytest.mark.parametrize("text", ["[[NaN, 1, 2, 3]]", "[[1, 2, Infinity, 3]]", "[[1, -Infinity, 2, 3]]"])
def test_a_box_that_is_not_finite_is_read_and_left_to_rendering(tmp_path: Path, text: str) -> None:
    line = f'{{"image_path": "a", "height": 9, "width": 9, "expression": "x", "bboxes": {text}}}'
    (record,) = read_all(tmp_path, "VG", [line])
    assert isinstance(record, Record)
    assert len(record.regions) == 1


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("VG", {"image_path": None}, "image_path: expected text, got None"),
        ("VG", {"image_path": "  "}, "image_path: expected text, got '  '"),
        ("VG", {"image_path": ["a.jpg"]}, "image_path: expected text, got ['a.jpg']"),
        ("VG", {"width": None}, "width: expected a whole number of pixels above 0, got None"),
        ("VG", {"width": 0}, "width: expected a whole number of pixels above 0, got 0"),
        ("VG", {"width": "64"}, "width: expected a whole number of pixels above 0, got '64'"),
        ("VG", {"width": True}, "width: expected a whole number of pixels above 0, got True"),
        ("VG", {"height": 48.5}, "height: expected a whole number of pixels above 0, got 48.5"),
        ("VG", {"height": -48}, "height: expected"),
        ("VG", {"height": 1e300}, "height: expected"),
        ("VG", {"height": float("nan")}, "height: expected"),
        ("VG", {"height": float("inf")}, "height: expected"),
        ("VG", {"expression": ""}, "expression: expected text, got ''"),
        ("VG", {"expression": 7}, "expression: expected text, got 7"),
        ("VG", {"expression": ["a"]}, "expected one text, got a list of 1"),
        ("VG", {"bboxes": None}, "bboxes: expected a list, got None"),
        ("VG", {"bboxes": {"a": 1}}, "bboxes: expected a list"),
        ("VG", {"bboxes": [[1, 2, 3]]}, "bboxes: expected a box of four numbers, got [1, 2, 3]"),
        ("VG", {"bboxes": [1, 2, 3]}, "bboxes: expected a box of four numbers, got 1"),
        ("VG", {"bboxes": [[1, 2, 3, "4"]]}, "bboxes: expected a box of four numbers"),
        ("VG", {"bboxes": [[1, 2, 3, True]]}, "bboxes: expected a box of four numbers"),
        ("VG", {"bboxes": [BOX, None]}, "bboxes: expected a box of four numbers, got None"),
        ("REG", {"bboxes": []}, "REG needs exactly one box, got 0"),
        ("REG", {"bboxes": [BOX, BOX]}, "REG needs exactly one box, got 2"),
        ("REG", {"expression": ["a", "b"], "bboxes": [BOX]}, "got 2 expressions and 1 box"),
        ("REG", {"expression": ["a"], "bboxes": BOX}, "1 expression and 4 boxes"),
        ("REG", {"expression": [], "bboxes": []}, "expression: the list is empty"),
        ("REG", {"expression": ["a", None], "bboxes": [BOX, BOX]}, "expression: expected text, got None"),
        ("REG", {"expression": ["a", "b"], "bboxes": [BOX, [BOX, BOX]]}, "expected a box of four numbers"),
        ("DET", {"objects": None}, "objects: expected a list, got None"),
        ("DET", {"objects": ["cat"]}, "objects: expected objects, got 'cat'"),
        ("DET", {"objects": [{"bboxes": [BOX]}]}, "category_name: expected text, got None"),
        ("DET", {"objects": [{"category_name": "", "bboxes": [BOX]}]}, "category_name: expected text, got ''"),
        ("DET", {"objects": [{"category_name": "a"}]}, "bboxes: expected a list, got None"),
        ("DET", {"objects": [{"category_name": "a", "bboxes": BOX}]}, "bboxes: expected a box of four numbers, got 1"),
    ],
)
def test_each_fault_is_reported_by_field(tmp_path: Path, task: str, change: dict[str, Any], message: str) -> None:
    good = DETECTED if task == "DET" else {**IMAGE, "expression": "a man", "bboxes": [BOX]}
    outcomes = read_all(tmp_path, task, [good, {**good, **change}, good])
    assert isinstance(outcomes[0], Record)
    assert isinstance(outcomes[-1], Record)
    wrong = outcomes[1:-1]
    faults = [item for item in wrong if isinstance(item, tuple)]
    assert {reason for reason, _ in faults} == {"bad_record"}
    assert any(message in detail for _, detail in faults)


def test_the_names_of_a_detection_source(tmp_path: Path) -> None:
    strange = ["not an object", {"objects": 5}, {"objects": [{"category_name": 3}, {"category_name": " "}, 4]}]
    more = {"objects": [{"category_name": "ant"}, {"category_name": "an <image> of it", "bboxes": []}]}
    path = write_lines(tmp_path, [DETECTED, *strange, "{ broken", more, DETECTED])
    assert read_file(path, "DET")[1] == ("ant", "cat", "zebra", "狗")
    for task in ("RANDDET", "VISJ"):
        assert read_file(path, task)[1] == ()


def test_record_numbers_count_what_cannot_be_used_too(tmp_path: Path) -> None:
    good = {**IMAGE, "expression": ["a", "b"], "bboxes": [BOX, OTHER]}
    outcomes = read_all(tmp_path, "REG", ["{ broken", good, [1], {**good, "expression": ["a"]}, good])
    assert [item[0] if isinstance(item, tuple) else item.record_no for item in outcomes] == [
        "bad_json",
        1,
        2,
        "bad_record",
        "bad_record",
        5,
        6,
    ]


def test_boxes_are_tuples_of_four(tmp_path: Path) -> None:
    (record,) = read_all(tmp_path, "VG", [{**IMAGE, "expression": "x", "bboxes": BOX}])
    assert isinstance(record, Record)
    box: BoxXYXY = record.regions[0].box_xyxy_px
    assert box == (1.0, 2.5, 30.0, 40.0)
