"""COCO's JSON as COCO, Objects365, LVIS and V3Det publish it: what a user gets of it."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from griffon_prep.records import Record
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import parse_answer
from griffon_shards.support.errors import DataError, SettingsError

from ..conftest import Prep
from ..rendering import BARE, filling, texts
from .published import CATEGORIES, box, coco, picture, write
from .reading import read_source

CAT, DOG, COW, EMU = ("cat", "dog", "cow", "emu")
TO_CORNERS = (10.0, 20.0, 40.0, 60.0)


def read(folder: Path, file: object, task: str = "DET") -> list[Record | tuple[str, str]]:
    return read_source(write(folder, {"instances.json": file}), task)[0]


def only(folder: Path, file: object, task: str = "DET") -> Record:
    (record,) = read(folder, file, task)
    assert isinstance(record, Record), record
    return record


def regions(record: Record | tuple[str, str]) -> list[tuple[str, tuple[float, ...], bool]]:
    assert isinstance(record, Record), record
    return [(region.phrase, region.box_xyxy_px, region.crowd) for region in record.regions]


def asked(folder: Path, file: object, task: str, det_categories: int = 80, seed: int = 0) -> tuple[set[str], set[str]]:
    """The categories that the only record's question names, and those of its answer."""
    (record,), scan = read_source(write(folder, {"instances.json": file}), task)
    assert isinstance(record, Record), record
    settings = RenderSettings(seed=seed, boxes="text", det_categories=det_categories, variants=1, templates=BARE)
    ((rendering,), _) = render(record, Source(tag=task, task=task, vocabulary=scan.vocabulary), settings)
    names = filling(rendering).replace(", and ", ", ").replace(" and ", ", ").split(", ")
    assert len(names) == len(set(names))
    answer = parse_answer(texts(rendering)[1], task, "text")
    return set(names), {name for name, _ in answer}


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_an_image_is_a_record(tmp_path: Path, task: str) -> None:
    record = only(tmp_path, coco([picture(license=1)], [box(segmentation=[[1, 2]], area=3.5)]), task)
    assert (record.record_no, record.image_path, record.width_px, record.height_px) == (0, "7.jpg", 200, 100)
    assert regions(record) == [(CAT, TO_CORNERS, False)]
    assert (record.absent_phrases, record.only_these_absent) == ((), False)


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"file_name": "000000000007.jpg"}, "000000000007.jpg"),  # COCO
        ({"file_name": "images/v2/patch8/objects365_v2_00420917.jpg"}, "images/v2/patch8/objects365_v2_00420917.jpg"),
        ({"file_name": "obj365_train_000000000001.jpg"}, "obj365_train_000000000001.jpg"),  # Objects365 v1
        ({"coco_url": "http://images.cocodataset.org/train2017/7.jpg"}, "train2017/7.jpg"),  # LVIS v1
        ({"file_name": "COCO_val2014_7.jpg", "coco_url": "http://x/val2017/7.jpg"}, "COCO_val2014_7.jpg"),  # LVIS v0.5
        ({"file_name": "images/n02085620/10_图 1.jpg"}, "images/n02085620/10_图 1.jpg"),  # V3Det
    ],
)
def test_where_the_image_is(tmp_path: Path, entry: dict[str, str], path: str) -> None:
    fields = {"id": 7, "width": 200, "height": 100, **entry}
    assert only(tmp_path, coco([fields])).image_path == path


def test_boxes_find_their_images_in_any_order(tmp_path: Path) -> None:
    pictures = [picture(number) for number in (9, 2**40, -5, 0, 7)]
    # The images' boxes lie mixed up; those of one image keep their order, which the answer's order falls back on.
    owners = [7, 9, 7, -5, 2**40, 9, 7, 0, 9]
    boxes = [box(position, owner, bbox=[position, 0, 10, 10]) for position, owner in enumerate(owners)]
    actual = {
        record.image_path: [region.box_xyxy_px[0] for region in record.regions]
        for record in read(tmp_path, coco(pictures, boxes))
        if isinstance(record, Record)
    }
    assert actual == {
        f"{number}.jpg": [float(position) for position, owner in enumerate(owners) if owner == number]
        for number in (9, 2**40, -5, 0, 7)
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_members_in_any_order(tmp_path: Path, indent: int | None) -> None:
    whole = coco([picture(i) for i in range(30)], [box(n, n % 30, (17, 18)[n % 2]) for n in range(200)])
    whole["type"], whole["empty"] = 'instances, "and"\\', {"a": [[], {}]}
    orders = [list(whole), list(reversed(whole)), ["annotations", "images", "categories"]]
    actual = [read(tmp_path, json.dumps({key: whole[key] for key in keys}, indent=indent)) for keys in orders]
    assert actual[0] == actual[1] == actual[2]
    assert [len(regions(record)) for record in actual[0]] == [7] * 20 + [6] * 10


@pytest.mark.parametrize("number", [7, 7.0, 0, -1, 2**62, 2**63 - 1, -(2**62) - 1])
def test_ids_of_any_integer(tmp_path: Path, number: float) -> None:
    file = coco([picture(number, file_name="a.jpg")], [box(number, number, number)], [{"id": number, "name": CAT}])
    assert regions(only(tmp_path, file)) == [(CAT, TO_CORNERS, False)]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (coco([picture(), picture(8), picture(file_name="b.jpg")]), "two entries of images have the same id 7"),
        (coco(categories=[*CATEGORIES, {"id": 17, "name": "lion"}]), "categories 'cat' and 'lion' have the same id 17"),
        ({**coco(), "images": {}}, "images: expected an array"),
        (
            {"images": [picture()], "categories": []},
            "has no annotations; .*image_info files list images only",
        ),
        (
            {"images": [picture()], "annotations": [{"id": 1, "image_id": 7, "caption": "A cat."}]},
            "has no categories; .*COCO's captions files have none",
        ),
        ({"annotations": [box()]}, "has no categories, images"),
    ],
)
def test_what_is_ambiguous_or_missing_is_refused(tmp_path: Path, file: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"instances\.json.*{message}"):
        read(tmp_path, file)


def test_the_same_category_twice_is_one(tmp_path: Path) -> None:
    (record,), scan = read_source(write(tmp_path, {"i.json": coco(categories=CATEGORIES * 2)}), "DET")
    assert regions(record) == [(CAT, TO_CORNERS, False)]
    assert scan.vocabulary == (CAT, COW, DOG, EMU)


@pytest.mark.parametrize(
    ("image", "annotation", "message"),
    [
        ({"width": None}, {}, "width"),
        ({"height": 99.5}, {}, "height"),
        ({"file_name": " "}, {}, "file_name"),
        ({"file_name": 7}, {}, "file_name"),
        ({}, {"bbox": [1, 2, 3]}, "bbox"),
        ({}, {"bbox": None}, "bbox"),
        ({}, {"bbox": ["1", 2, 3, 4]}, "bbox"),
        ({}, {"bbox": [True, 2, 3, 4]}, "bbox"),
        ({}, {"bbox": {"x": 1}}, "bbox"),
        ({}, {"category_id": 99}, "category_id"),
        ({}, {"category_id": "cat"}, "category_id"),
        ({}, {"category_id": None}, "category_id"),
        ({"neg_category_ids": [99]}, {}, "neg_category_ids"),
        ({"neg_category_ids": 17}, {}, "neg_category_ids"),
    ],
)
def test_an_image_that_cannot_be_used_is_rejected_alone(
    tmp_path: Path, image: dict[str, Any], annotation: dict[str, Any], message: str
) -> None:
    pictures = [picture(1), picture(2, **image), picture(3)]
    records = read(tmp_path, coco(pictures, [box(1, 1), box(2, 2, **annotation), box(3, 3)]))
    assert [isinstance(record, Record) for record in records] == [True, False, True]
    reason, detail = records[1]  # type: ignore[misc]
    assert (reason, message in detail) == ("bad_record", True)


def test_an_image_that_is_not_json_is_rejected_alone(tmp_path: Path) -> None:
    text = json.dumps(coco([picture(1), picture(2), picture(3)], [box(1, 1), box(3, 3)]))
    records = read(tmp_path, text.replace('"2.jpg"', "2.jpg"))
    assert [isinstance(record, Record) for record in records] == [True, False, True]
    assert records[1][0] == "bad_json"  # type: ignore[index]


@pytest.mark.parametrize("crowd", [1, True, 1.0])
def test_a_crowd_is_no_answer_and_no_negative(tmp_path: Path, crowd: object) -> None:
    file = coco(annotations=[box(), box(2, 7, 18, iscrowd=crowd)])
    assert regions(only(tmp_path, file)) == [(CAT, TO_CORNERS, False), (DOG, TO_CORNERS, True)]
    for seed in range(20):
        assert asked(tmp_path, file, "DET", seed=seed) == ({CAT, COW, EMU}, {CAT})
        names, answered = asked(tmp_path, file, "RANDDET", seed=seed)
        assert answered == {CAT}
        assert names in ({CAT, COW}, {CAT, EMU})


@pytest.mark.parametrize("crowd", [0, 0.0, False, None])
def test_no_crowd(tmp_path: Path, crowd: object) -> None:
    annotation = box(iscrowd=crowd)
    assert regions(only(tmp_path, coco(annotations=[annotation]))) == [(CAT, TO_CORNERS, False)]
    del annotation["iscrowd"]
    assert regions(only(tmp_path, coco(annotations=[annotation]))) == [(CAT, TO_CORNERS, False)]


@pytest.mark.parametrize("bbox", [[500, 0, 10, 10], [10, 10, -5, 5], [float("nan"), 0, 1, 1], [0, 0, float("inf"), 1]])
def test_a_category_with_a_dropped_box_is_not_a_negative(tmp_path: Path, bbox: list[float]) -> None:
    file = coco(annotations=[box(), box(2, 7, 18, bbox=bbox)])
    for seed in range(10):
        assert asked(tmp_path, file, "DET", seed=seed) == ({CAT, COW, EMU}, {CAT})


@pytest.mark.parametrize("spoilt", ["1e999", "-1e999", "NaN", "-Infinity"])
def test_an_infinite_number_drops_only_its_own_box(tmp_path: Path, spoilt: str) -> None:
    text = json.dumps(coco(None, [box(), box(2, 7, 18, bbox=[555, 20, 30, 40])])).replace("555", spoilt)
    assert asked(tmp_path, text, "DET") == ({CAT, COW, EMU}, {CAT})


@pytest.mark.parametrize(("negatives", "names"), [([], {CAT}), ([90], {CAT, COW}), ([90, 3, 17, 18], {CAT, COW, EMU})])
def test_lvis_is_asked_for_what_it_looked_for_only(tmp_path: Path, negatives: list[int], names: set[str]) -> None:
    """A category that is there (17), or is but a crowd (18), is not asked for as absent though the file says so."""
    file = coco([picture(neg_category_ids=negatives)], [box(), box(2, 7, 18, iscrowd=1)])
    assert asked(tmp_path, file, "DET") == (names, {CAT})
    names_of_a_few, answered = asked(tmp_path, file, "RANDDET")
    assert answered == {CAT}
    assert names_of_a_few <= names
    assert len(names_of_a_few) == min(2, len(names))


def test_the_category_set_is_no_larger_than_asked(tmp_path: Path) -> None:
    names, answered = asked(tmp_path, coco(), "DET", det_categories=2)
    assert answered == {CAT}
    assert len(names) == 2


@pytest.mark.parametrize(("present", "expected"), [(1, 1), (4, 4), (5, 5), (9, 5)])
def test_randdet_asks_for_up_to_five_present_and_as_many_absent(tmp_path: Path, present: int, expected: int) -> None:
    categories = [{"id": i, "name": f"c{i}"} for i in range(30)]
    file = coco(annotations=[box(i, 7, i) for i in range(present)], categories=categories)
    drawn = set()
    for seed in range(6):
        names, answered = asked(tmp_path, file, "RANDDET", seed=seed)
        assert (len(answered), len(names)) == (expected, 2 * expected)
        assert answered == names & {f"c{i}" for i in range(present)}
        drawn.add(frozenset(names))
    assert len(drawn) > 1


def test_regions_and_expressions_are_not_available(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="format coco supports DET, RANDDET, VISJ, not REG"):
        read(tmp_path, coco(), "REG")


@pytest.mark.parametrize("size", [10, 60, 300, -60, -2, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path, json.dumps(coco())[:size])


def test_a_build_counts_crowds_and_leaves_out_images_without_objects(
    tmp_path: Path, prep: Prep, lock_of: Callable[[Path], dict[str, Any]]
) -> None:
    """Objects365's way: the files lie in shorter folders than `file_name` says."""
    names = {number: f"images/v2/patch{number}/{number}.jpg" for number in range(4)}
    for number in names:
        path = tmp_path / f"train/patch{number}/{number}.jpg"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (200, 100)).save(path)
    boxes = [box(1, 0), box(2, 0, 18, iscrowd=1), box(3, 1, iscrowd=1), box(4, 3, bbox=[0, 0, 100, 50]), box(5, 99)]
    write(tmp_path, {"o.json": coco([picture(number, file_name=names[number]) for number in names], boxes)})
    (tmp_path / "m.txt").write_text("DET & o.json & train\nRANDDET & o.json & train\nVISJ & o.json & train\n")
    built = prep("build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert built.returncode == 0, built.stderr
    assert (
        "DET: annotations whose image_id is not in images, skipped: 1 (the first is annotation 5, image_id 99)"
        in built.stderr
    )
    lock = lock_of(tmp_path / "out")
    for source in lock["sources"]:
        actual = (source["records"], source["samples"], source["rejected"], source["format"])
        assert actual == (4, 2, {"no_objects": 2}, "coco")  # of images 1 and 2
    assert [shard["dropped_boxes"] for shard in lock["shards"]] == [{"crowd": 1}] * 3
    rejected = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert sorted((line["source"], line["record"]) for line in rejected) == [
        (task, number) for task in ("DET", "RANDDET", "VISJ") for number in (1, 2)
    ]
    # 3.jpg: the box ends in the middle of the image; 0.jpg: 10/200, 20/100, 40/200, 60/100, and no word of the crowd.
    with tarfile.open(tmp_path / "out/DET/DET-000000.tar") as shard:
        answers = {
            name: json.load(shard.extractfile(name))["conversations"][1]["value"]  # type: ignore[arg-type]
            for name in shard.getnames()
            if name.endswith(".json")
        }
    assert answers == {
        "DET-000000000.json": "cat-[0.050,0.200,0.200,0.600]",
        "DET-000000003.json": "cat-[0.000,0.000,0.500,0.500]",
    }
