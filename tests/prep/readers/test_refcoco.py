"""RefCOCO's pickles and gRefCOCO's JSON with `instances.json` beside them: what a user gets of each reference."""

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from griffon_prep.records import Record, Rejected
from griffon_shards.support.errors import DataError, SettingsError

from ..conftest import Prep
from ..rendering import rendered, texts
from .published import box, coco, picture, python2_binary_pickle, python2_text_pickle, ref, write
from .reading import read_source

ONE, TWO = (10.0, 20.0, 40.0, 60.0), (100.0, 0.0, 150.0, 50.0)
INSTANCES = coco([picture(7, file_name="COCO_train2014_7.jpg"), picture(8)], [box(1), box(2, bbox=[100, 0, 50, 50])])
PACKED: dict[str, Callable[[Any], bytes]] = {
    **{f"protocol {i}": partial(pickle.dumps, protocol=i) for i in range(6)},
    "Python 2, text": lambda value: python2_text_pickle(value) + b".",
    "Python 2, binary": lambda value: b"\x80\x02" + python2_binary_pickle(value) + b".",
}
BY_HAND = b"""(lp0
(dp1
S'sent_ids'
p2
(lp3
I5
asS'file_name'
p4
S'COCO_train2014_7_1.jpg'
p5
sS'ann_id'
p6
L2L
sS'sentences'
p7
(lp8
(dp9
S'tokens'
p10
(lp11
S'caf\\xc3\\xa9'
p12
asS'raw'
p13
S'The Caf\\xc3\\xa9 "left"'
p14
sS'sent_id'
p15
I5
sS'sent'
p16
V caf\\u00e9 left
p17
sasS'ref_id'
p18
I3
sS'image_id'
p19
I7
sS'split'
p20
S'train'
p21
sS'category_id'
p22
I17
sa."""
"""As Python 2 wrote it, with its memo, long integers, byte strings and a unicode string."""


def read(
    folder: Path, refs: object, task: str = "VG", instances: object = INSTANCES, **options: str
) -> list[Record | tuple[str, str]]:
    """Read pickled references; a text is JSON already, bytes are written as they are."""
    content = refs if isinstance(refs, bytes | str) else pickle.dumps(refs, 2)
    return read_source(write(folder, {"refs(unc).p": content, "instances.json": instances}), task, **options)[0]


def found(records: list[Record | tuple[str, str]]) -> list[list[tuple[str, tuple[float, ...]]] | str]:
    """Regions of each record, or the reason it is rejected for."""
    return [
        [(region.phrase, region.box_xyxy_px) for region in record.regions] if isinstance(record, Record) else record[0]
        for record in records
    ]


def grefs(*refs: dict[str, Any]) -> str:
    return json.dumps([*refs])


@pytest.mark.parametrize("task", ["REG", "VG"])
@pytest.mark.parametrize("make", PACKED)
def test_each_sentence_is_a_record(tmp_path: Path, task: str, make: str) -> None:
    refs = [ref(1, "left cat", "猫"), ref(2, "x" * 300), ref(1, "not now", split="val")]
    records = read(tmp_path, PACKED[make](refs), task)
    assert found(records) == [[("left cat", ONE)], [("猫", ONE)], [("x" * 300, TWO)]]
    for index, record in enumerate(records):
        assert isinstance(record, Record)
        assert (record.record_no, record.image_path) == (index, "COCO_train2014_7.jpg")  # not the ref's file_name
        assert (record.width_px, record.height_px, record.absent_phrases) == (200, 100, ())


def test_a_pickle_of_python_2_by_hand(tmp_path: Path) -> None:
    assert found(read(tmp_path, BY_HAND)) == [[("café left", TWO)]]


@pytest.mark.parametrize("task", ["REG", "VG"])
def test_a_string_that_is_not_utf8_rejects_its_reference(tmp_path: Path, task: str) -> None:
    spoilt = python2_text_pickle([ref(1, "one"), ref(1, "cafX"), ref(2, "two")]).replace(b"cafX", b"caf\\xe9") + b"."
    records = read(tmp_path, spoilt, task)
    assert found(records) == [[("one", ONE)], "bad_record", [("two", TWO)]]
    assert "is not UTF-8" in records[1][1]  # type: ignore[index]
    records[1][1].encode()  # type: ignore[index]


def test_the_benchmarks_words_come_before_those_typed(tmp_path: Path) -> None:
    sentences = [{"raw": "The LEFT", "sent": " the left "}, {"raw": "Raw only"}, {"raw": "Empty", "sent": ""}]
    assert found(read(tmp_path, [{**ref(1), "sentences": sentences}])) == [
        [("the left", ONE)],
        [("Raw only", ONE)],
        [("Empty", ONE)],
    ]


@pytest.mark.parametrize(
    ("split", "expected"), [(None, ["a"]), ("train", ["a"]), ("testA", ["b", "d"]), ("val", ["c"])]
)
def test_the_requested_split(tmp_path: Path, split: str | None, expected: list[str]) -> None:
    refs = [ref(1, "a"), ref(1, "b", split="testA"), ref(1, "c", split="val"), ref(1, "d", split="testA")]
    records = read(tmp_path, refs, **({"split": split} if split else {}))
    assert [record.regions[0].phrase for record in records if isinstance(record, Record)] == expected
    assert [record.record_no for record in records if isinstance(record, Record)] == list(range(len(expected)))


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unknown_split_lists_those_that_exist(tmp_path: Path, as_json: bool) -> None:
    refs = [ref(1, "a"), ref(1, "b", split="val"), ref(1, "c", split="testA"), {"split": 5}]
    content = grefs(*refs) if as_json else pickle.dumps(refs)
    with pytest.raises(SettingsError, match=r"no references of split=test; the splits in it are testA, train, val$"):
        read(tmp_path, content, format="refcoco", split="test")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"ann_id": 99},
        {"ann_id": None},
        {"ann_id": "one"},
        {"ann_id": -1},
        {"ann_id": True},
        {"ann_id": [1, [2]]},
        {"ann_id": []},
        {"ann_id": (1,)},
        {"ann_id": 2**70},
        {"ann_id": 10**5000},
        {"image_id": 9},
        {"image_id": 8},  # the box is of image 7
        {"image_id": None},
        {"image_id": float("nan")},
        {"sentences": None},
        {"sentences": ({"sent": "a"},)},
        {"sentences": ["a"]},
        {"sentences": [{"sent": None}]},
        {"sentences": [{"sent": 5}]},
        {"sentences": [{"raw": " "}]},
        {"split": None},
    ],
    ids=lambda value: f"{value!s:.40}" if "ann_id" not in value else f"{type(value['ann_id']).__name__}",
)
def test_a_reference_that_cannot_be_used_is_rejected_alone(tmp_path: Path, spoilt: dict[str, Any]) -> None:
    records = read(tmp_path, [ref(1, "one"), {**ref(1, "spoilt"), **spoilt}, ref(2, "two")])
    assert found(records) == [[("one", ONE)], "bad_record", [("two", TWO)]]


@pytest.mark.parametrize(
    ("images", "annotation"),
    [
        ({"width": None}, {}),
        ({"file_name": 5}, {}),
        ({}, {"bbox": [1, 2, 3]}),
        ({}, {"id": "one"}),
        ({}, {"image_id": None}),
    ],
)
def test_instances_that_cannot_be_used_reject_their_references(
    tmp_path: Path, images: dict[str, Any], annotation: dict[str, Any]
) -> None:
    other = picture(8, file_name="8.jpg")
    instances = coco([picture(7, **images), other], [{**box(1), **annotation}, box(2, 8)])
    records = read(tmp_path, [ref(1, "one"), ref(2, "two", image_id=8)], instances=instances)
    assert found(records) == ["bad_record", [("two", ONE)]]


@pytest.mark.parametrize("depth", [300, 980, 1000, 1020, 5000])
def test_an_entry_of_any_depth_does_not_crash(tmp_path: Path, depth: int) -> None:
    deep = json.dumps(INSTANCES).replace('"width": 200', f'"width": {"[" * depth}{"]" * depth}', 1)
    assert found(read(tmp_path, [ref(1, "one")], instances=deep)) == ["bad_record"]


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        (coco([picture(), picture(width=9)]), "images have the same id 7"),
        (coco(None, [box(), box(bbox=[1, 2, 3, 4])]), "annotations have the same id 1"),
        ([picture()], "expected {"),
        (json.dumps(INSTANCES)[:-40], "truncated"),
        ({"images": [], "annotations": []}, "has no categories"),
    ],
)
def test_instances_that_do_not_tell_are_refused(tmp_path: Path, instances: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"instances\.json.*{message}"):
        read(tmp_path, [ref(1, "one")], instances=instances)


@pytest.mark.parametrize("content", [5, {"a": 1}, (ref(1, "one"),), "text", None])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: expected a pickled list of references, got "):
        read(tmp_path, pickle.dumps(content))


def test_several_boxes_or_none(tmp_path: Path) -> None:
    """gRefCOCO: one sample with all boxes; `None` is answered only where the file says that nothing is meant."""
    refs = grefs(
        ref([1], "one", no_target=False),
        ref([2, 1], "both", "the two", no_target=False),
        ref([-1], "a zebra", no_target=True),
        ref([], "a gnu", no_target=True),
        ref([-1], "forgotten", no_target=False),
        ref([-1], "unsaid"),
        ref([], "empty", no_target=False),
        ref([1], "contradicted", no_target=True),
        ref([1, 99], "one too many", no_target=False),
    )
    records = read(tmp_path, refs)
    assert found(records) == [
        [("one", ONE)],
        [("both", TWO), ("both", ONE)],
        [("the two", TWO), ("the two", ONE)],
        *([], []),
        *(["bad_record"] * 5),
    ]
    answers = [texts(rendered("VG", record)[0])[1] for record in records if isinstance(record, Record)]
    both = "{0}-[0.050,0.200,0.200,0.600]&{0}-[0.500,0.000,0.750,0.500]"
    assert answers == ["one-[0.050,0.200,0.200,0.600]", both.format("both"), both.format("the two"), "None", "None"]
    absent = [record.absent_phrases for record in records if isinstance(record, Record)]
    assert absent == [(), (), (), ("a zebra",), ("a gnu",)]


def test_reg_describes_one_box(tmp_path: Path) -> None:
    refs = [ref([1], "one", no_target=False), ref([1, 2], "b", "c"), ref([-1], "no", no_target=True), ref([2], "two")]
    annotation = write(tmp_path, {"grefs(unc).json": grefs(*refs), "instances.json": INSTANCES})
    records, scan = read_source(annotation, "REG")
    assert found(records) == [[("one", ONE)], [("two", TWO)]]
    assert scan.notes == ("3 expressions of the split skipped: REG needs exactly one box",)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("task", ["REG", "VG"])
def test_references_without_a_sentence_are_skipped_and_reported(tmp_path: Path, task: str, as_json: bool) -> None:
    """gRefCOCO has some; those of other splits are not reported."""
    refs = [ref(1, "one"), ref(1), ref(2, "two"), {**ref(-1), "no_target": True}, ref(1, split="val"), ref(99)]
    content = grefs(*refs) if as_json else pickle.dumps(refs)
    records, scan = read_source(write(tmp_path, {"refs(unc).p": content, "instances.json": INSTANCES}), task)
    assert found(records) == [[("one", ONE)], [("two", TWO)]]
    assert scan.notes == ("3 references of the split skipped for lack of a sentence",)


def test_boxes_that_are_not_finite_are_dropped_and_others_stay(tmp_path: Path) -> None:
    instances = json.dumps(coco(None, [box(1), box(2, bbox=[float("nan"), 0, 5, 5]), box(3, bbox=[1e999, 0, 5, 5])]))
    refs = grefs(ref([1, 2], "one left", no_target=False), ref([2, 3], "none left", no_target=False))
    first, second = read(tmp_path, refs, instances=instances)
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert texts(rendered("VG", first)[0])[1] == "one left-[0.050,0.200,0.200,0.600]"
    with pytest.raises(Rejected, match="all_boxes_dropped"):
        rendered("VG", second)


def test_a_reference_of_json_that_is_not_json_is_rejected_alone(tmp_path: Path) -> None:
    records = read(tmp_path, grefs(ref([1], "one"), ref([1], "two"), ref([2], "three")).replace('"two"', "two"))
    assert found(records) == [[("one", ONE)], "bad_json", [("three", TWO)]]


def test_without_instances_nothing_is_made(tmp_path: Path, prep: Prep) -> None:
    write(tmp_path, {"refs(unc).p": pickle.dumps([ref(1, "a")]), "m.txt": "VG & refs(unc).p & .\n"})
    built = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert built.returncode == 2
    (line,) = built.stderr.splitlines()
    assert "m.txt:1: VG: " in line
    assert "format refcoco needs instances.json (or instances.json.gz, instances.json.zst)" in line
    assert not (tmp_path / "out").exists()


def test_a_wrong_split_is_one_line(tmp_path: Path, prep: Prep) -> None:
    refs = pickle.dumps([ref(1, "a", split="testB"), ref(1, "a", split="testA")])
    write(tmp_path, {"refs(unc).p": refs, "instances.json": INSTANCES, "m.txt": "VG & refs(unc).p & .\n"})
    built = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert built.returncode == 2
    (line,) = built.stderr.splitlines()
    assert "split=train; the splits in it are testA, testB" in line
