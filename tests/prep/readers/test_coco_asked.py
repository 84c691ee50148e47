"""Categories that must not be asked for as absent or as complete, and other places of LVIS's images."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from griffon_prep.records import Record, Rejected
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import parse_answer

from ..rendering import BARE, filling, texts
from .mutations import Made, as_json, made_of
from .published import box, coco, picture, write
from .reading import read_all, read_source

CAT, DOG, COW, EMU = "cat", "dog", "cow", "emu"
SEEDS = range(12)


def only(folder: Path, file: object, task: str) -> tuple[Record, Source]:
    (record,), scan = read_source(write(folder, {"instances.json": file}), task)
    assert isinstance(record, Record), record
    return record, Source(tag=task, task=task, vocabulary=scan.vocabulary)


def rendering_of(record: Record, source: Source, seed: int = 0) -> tuple[tuple[str, str], Counter[str]]:
    settings = RenderSettings(seed=seed, boxes="text", det_categories=80, variants=1, templates=BARE)
    ((rendering,), dropped) = render(record, source, settings)
    return (filling(rendering), texts(rendering)[1]), dropped


def asked(record: Record, source: Source, seed: int) -> tuple[set[str], set[str]]:
    """The categories of the question, and those of the answer."""
    (question, answer), _ = rendering_of(record, source, seed)
    names = question.replace(", and ", ", ").replace(" and ", ", ").split(", ")
    assert len(names) == len(set(names))
    return set(names), {name for name, _ in parse_answer(answer, source.task, "text")}


def ever_asked(folder: Path, file: object, task: str) -> tuple[set[str], set[str]]:
    """The categories that are asked for with some seed, and those that are answered."""
    record, source = only(folder, file, task)
    result = [asked(record, source, seed) for seed in SEEDS]
    return set().union(*(names for names, _ in result)), set().union(*(answered for _, answered in result))


def kinds(*of: tuple[str, str]) -> list[dict[str, Any]]:
    """Categories 0, 1, ... of names and supercategories."""
    return [{"id": index, "name": name, "supercategory": kind} for index, (name, kind) in enumerate(of)]


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
@pytest.mark.parametrize("root", ["animals", "Animals ", "ANIMALS"])
def test_an_artificial_root_category_is_never_asked_for(tmp_path: Path, task: str, root: str) -> None:
    """Annotation services export one: the first category, supercategory of all others, without annotations."""
    categories = kinds((root, "none"), (CAT, "animals"), (DOG, "animals"), (COW, "animals"))
    file = coco(annotations=[box(1, 7, 1)], categories=categories)
    assert ever_asked(tmp_path, file, task) == ({CAT, DOG, COW}, {CAT})
    _, scan = read_source(tmp_path / "instances.json", task)
    assert scan.notes == (
        f"category {root.strip()!r} is never asked for: it has no annotations and is the supercategory of others",
    )
    assert read_source(tmp_path / "instances.json", "VISJ")[1].notes == ()


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
@pytest.mark.parametrize(
    ("categories", "names"),
    [
        (kinds((CAT, CAT), (DOG, CAT), (COW, "")), {CAT, DOG, COW}),  # it has a box
        (kinds((CAT, CAT), (DOG, DOG), (COW, "none")), {CAT, DOG, COW}),  # each is its own, as COCO's person
        (kinds((CAT, "animal"), (DOG, "animal"), (COW, "animal")), {CAT, DOG, COW}),  # the animal is no category
        ([{"id": 0, "name": CAT}, {"id": 1, "name": DOG, "supercategory": None}], {CAT, DOG}),
        (kinds((CAT, "a"), ("a", "b"), ("b", ""), (COW, "")), {CAT, COW}),  # a root above a root
        (kinds((CAT, "a"), ("a", "b"), ("b", "a"), (COW, "")), {CAT, COW}),  # in a circle
    ],
)
def test_other_supercategories(tmp_path: Path, task: str, categories: list[dict[str, Any]], names: set[str]) -> None:
    file = coco(annotations=[box(1, 7, 0)], categories=categories)
    assert ever_asked(tmp_path, file, task) == (names, {CAT})


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
def test_a_supercategory_is_not_absent_if_a_category_of_it_is_present(tmp_path: Path, task: str) -> None:
    """Vehicles are annotated elsewhere; an image of a car shows one nevertheless, and an image of a cat does not."""
    categories = kinds(("vehicle", "thing"), ("car", "vehicle"), (CAT, "thing"), ("thing", ""), (DOG, ""))
    pictures = [picture(7), picture(8), picture(9)]
    file = coco(pictures, [box(1, 7, 1), box(2, 8, 0), box(3, 9, 3)], categories)
    records, scan = read_source(write(tmp_path, {"instances.json": file}), task)
    source = Source(tag=task, task=task, vocabulary=scan.vocabulary)
    never = [{"vehicle", "thing"}, {"thing"}, set()]
    for record, not_asked in zip(records, never, strict=True):
        assert isinstance(record, Record)
        for seed in SEEDS:
            names, answered = asked(record, source, seed)
            assert len(answered) == 1
            assert not names & not_asked
            if task == "DET":
                assert names == {"vehicle", "car", CAT, "thing", DOG} - not_asked


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
@pytest.mark.parametrize("other", ["Cat", "CAT", "cat ", "  cAt"])
def test_another_spelling_is_not_absent(tmp_path: Path, task: str, other: str) -> None:
    categories = kinds((CAT, ""), (other, ""), (DOG, ""), ("big  dog", ""), ("Big Dog", ""))
    for present, names in ((0, {CAT, DOG, "big  dog", "Big Dog"}), (3, {CAT, other.strip(), DOG, "big  dog"})):
        actual, _ = ever_asked(tmp_path, coco(annotations=[box(1, 7, present)], categories=categories), task)
        assert actual == names


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
def test_another_spelling_is_not_absent_in_records_of_their_own(tmp_path: Path, task: str) -> None:
    """CCMD's records name absent categories themselves."""
    objects = [
        {"category_name": name, "bboxes": boxes} for name, boxes in ((CAT, [[1, 2, 30, 40]]), ("Cat", []), (DOG, []))
    ]
    (record,) = read_all(tmp_path, task, [{"image_path": "a.jpg", "width": 64, "height": 48, "objects": objects}])
    assert isinstance(record, Record)
    source = Source(tag=task, task=task, vocabulary=("Cat", CAT, DOG) if task == "DET" else ())
    assert asked(record, source, 0) == ({CAT, DOG}, {CAT})


def lvis(not_exhaustive: list[object], negatives: list[object], *owners: int) -> dict[str, Any]:
    """An image with a box of each of some categories: 17 is a cat, 18 a dog, 90 a cow, 3 an emu."""
    entry = picture(not_exhaustive_category_ids=not_exhaustive, neg_category_ids=negatives)
    return coco([entry], [box(position, 7, owner) for position, owner in enumerate(owners)])


@pytest.mark.parametrize("task", ["DET", "RANDDET"])
@pytest.mark.parametrize("number", [18, 18.0, "18"])
def test_a_category_that_is_not_exhaustive_is_neither_complete_nor_absent(
    tmp_path: Path, task: str, number: object
) -> None:
    """Not all dogs have a box: answering with those that have one would be wrong, and so would `none`."""
    file = lvis([number], [90, 18], 17, 18, 18)
    assert ever_asked(tmp_path, file, task) == ({CAT, COW}, {CAT})
    assert rendering_of(*only(tmp_path, file, task))[1] == {"not_exhaustive": 2}
    without_negatives = lvis([number], [90, 18], 17, 18, 18)
    del without_negatives["images"][0]["neg_category_ids"]
    names, answered = ever_asked(tmp_path, without_negatives, task)
    assert (names, answered) == ({CAT, COW, EMU}, {CAT})


def test_the_others_are_not_looked_for_by_a_crop_of_one(tmp_path: Path) -> None:
    file = lvis([18], [], 17, 18)
    file["annotations"][1]["bbox"] = [100, 50, 20, 20]
    record, source = only(tmp_path, file, "VISJ")
    settings = RenderSettings(seed=0, boxes="text", det_categories=80, variants=20, templates=BARE)
    renderings, _ = render(record, source, settings)
    assert {rendering.turns[1].text for rendering in renderings} == {"[0.050,0.200,0.200,0.600]"}


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_an_image_without_complete_categories_is_skipped(tmp_path: Path, task: str) -> None:
    record, source = only(tmp_path, lvis([18], [], 18), task)
    with pytest.raises(Rejected) as caught:
        rendering_of(record, source)
    assert caught.value.reason == "no_objects"
    assert caught.value.detail == (
        "no boxes except 1 of crowds, of categories that are not exhaustive, or left out by difficult="
    )


@pytest.mark.parametrize("value", [[99], ["dog"], 18, [None]])
def test_what_is_not_exhaustive_must_be_known(tmp_path: Path, value: object) -> None:
    file = coco([picture(not_exhaustive_category_ids=value)])
    ((reason, detail),), _ = read_source(write(tmp_path, {"i.json": file}), "DET")  # type: ignore[misc]
    assert (reason, detail.startswith("7.jpg: not_exhaustive_category_ids: ")) == ("bad_record", True)


@pytest.mark.parametrize("path", ["val2017/000000000007.jpg", "000000000007.jpg", "COCO_val2014_000000000007.jpg"])
@pytest.mark.parametrize("task", ["DET", "VG"])
def test_an_image_is_looked_for_by_its_address_too(tmp_path: Path, path: str, task: str) -> None:
    """LVIS v0.5 has the file names of 2014 and the addresses of 2017. The file's own name goes first."""
    (tmp_path / path).parent.mkdir(exist_ok=True)
    Image.new("RGB", (200, 100)).save(tmp_path / path)
    entry = picture(
        file_name="COCO_val2014_000000000007.jpg",
        coco_url="http://images.cocodataset.org/val2017/000000000007.jpg",
        **({"caption": "the cat"} if task == "VG" else {}),
    )
    made = made_of(tmp_path, {"annotation": as_json(coco([entry]))}, task, Random(0))
    assert isinstance(made, Made)
    assert [sample.image for sample in made.samples] == [(tmp_path / path).read_bytes()]


@pytest.mark.parametrize("name", [None, ""])
def test_a_missing_name_leaves_the_address(tmp_path: Path, name: str | None) -> None:
    record, _ = only(tmp_path, coco([picture(file_name=name, coco_url="http://x/train2017/7.jpg")]), "DET")
    assert record.image_path == "train2017/7.jpg"
