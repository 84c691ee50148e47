"""Visual Genome's files: objects for DET, regions for REG and VG, sizes and file names from `image_data.json`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from griffon_prep.records import Record
from griffon_shards.support.errors import DataError, SettingsError

from ..conftest import Prep
from .published import write
from .reading import read_source

URL = "https://cs.stanford.edu/people/rak248/{}/{}.jpg"
READ = {"DET": "objects.json", "REG": "region_descriptions.json", "VG": "region_descriptions.json"}
CORNERS = (10.0, 20.0, 40.0, 60.0)


def data(number: object = 1, folder: str = "VG_100K", **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    return {"image_id": number, "width": 200, "height": 100, "url": URL.format(folder, number), **more}


def thing(*names: object, x: object = 10, y: object = 20, w: object = 30, h: object = 40) -> dict[str, Any]:
    return {"object_id": 5, "x": x, "y": y, "w": w, "h": h, "names": [*names], "synsets": []}


def region(phrase: object, x: object = 10, y: object = 20, width: object = 30, height: object = 40) -> dict[str, Any]:
    return {"region_id": 9, "image_id": 1, "x": x, "y": y, "width": width, "height": height, "phrase": phrase}


def read(folder: Path, elements: object, task: str, images: object = None) -> list[Record | tuple[str, str]]:
    files = {READ[task]: elements, "image_data.json": [data()] if images is None else images}
    return read_source(write(folder, files), task)[0]


def found(records: list[Record | tuple[str, str]]) -> list[list[tuple[str, tuple[float, ...]]] | str]:
    """Regions of each record, or the reason it is rejected for."""
    return [
        [(region.phrase, region.box_xyxy_px) for region in record.regions] if isinstance(record, Record) else record[0]
        for record in records
    ]


def test_objects_are_named_by_their_first_name(tmp_path: Path) -> None:
    elements = [
        {"image_id": 1, "objects": [thing(" Traffic Light ", "lamp"), thing("tree", x=0.5)]},
        {"image_id": 2, "objects": []},
        {"image_id": 3, "objects": [thing("tree"), thing("an <image>")]},
    ]
    files = {"objects.json": elements, "image_data.json": [data(3), data(1), data(2)]}
    records, scan = read_source(write(tmp_path, files), "DET")
    assert found(records) == [
        [("traffic light", CORNERS), ("tree", (0.5, 20.0, 30.5, 60.0))],
        [],
        [("tree", CORNERS), ("an <image>", CORNERS)],
    ]
    assert scan.vocabulary == ("traffic light", "tree")  # a question cannot hold the third


def test_each_region_is_a_record_of_reg(tmp_path: Path) -> None:
    elements = [
        {"id": 1, "regions": [region(" a cat \n"), region("a cat", x=0), region("a dog")]},
        {"id": 2, "regions": []},
        {"id": 3, "regions": [region("a cat")]},
    ]
    assert found(read(tmp_path, elements, "REG", [data(n) for n in (1, 2, 3)])) == [
        [("a cat", CORNERS)],
        [("a cat", (0.0, 20.0, 30.0, 60.0))],
        [("a dog", CORNERS)],
        [("a cat", CORNERS)],
    ]


def test_regions_of_the_same_phrase_are_one_record_of_vg(tmp_path: Path) -> None:
    elements = [
        {"id": 1, "regions": [region(" a cat \n"), region("a dog"), region("a cat", x=0), region("A cat")]},
        {"id": 2, "regions": []},
        {"id": 3, "regions": [region("a cat")]},
    ]
    records = read(tmp_path, elements, "VG", [data(n) for n in (1, 2, 3)])
    assert found(records) == [
        [("a cat", CORNERS), ("a cat", (0.0, 20.0, 30.0, 60.0))],
        [("a dog", CORNERS)],
        [("A cat", CORNERS)],
        [("a cat", CORNERS)],
    ]
    assert [record.image_path for record in records if isinstance(record, Record)] == [
        "VG_100K/1.jpg",
        "VG_100K/1.jpg",
        "VG_100K/1.jpg",
        "VG_100K/3.jpg",
    ]


@pytest.mark.parametrize("task", READ)
@pytest.mark.parametrize("indent", [None, 1])
def test_the_older_files_call_it_id(tmp_path: Path, task: str, indent: int | None) -> None:
    """Version 1.0: `id` for the image everywhere; and all ids are numbers of any size."""
    number = 2**40
    element = {"id": number, "objects": [thing("cat")], "regions": [{**region("cat"), "image": number}]}
    image = {**data(number), "id": number, "coco_id": None, "flickr_id": None}
    del image["image_id"]
    text = json.dumps([element], indent=indent)
    assert found(read(tmp_path, text, task, json.dumps([data(5), image], indent=indent))) == [[("cat", CORNERS)]]


def test_sizes_and_file_names_are_those_of_image_data(tmp_path: Path) -> None:
    images = [data(number, folder, width=number) for number, folder in ((30, "VG_100K_2"), (4, "VG_100K"), (9, "odd"))]
    elements = [{"image_id": number, "image_url": "x", "objects": [thing("a")]} for number in (4, 9, 30, 4)]
    records = [record for record in read(tmp_path, elements, "DET", images) if isinstance(record, Record)]
    assert [(record.image_path, record.width_px, record.height_px) for record in records] == [
        ("VG_100K/4.jpg", 4, 100),
        ("odd/9.jpg", 9, 100),
        ("VG_100K_2/30.jpg", 30, 100),
        ("VG_100K/4.jpg", 4, 100),
    ]


NO_DATA = "is not in image_data.json"


@pytest.mark.parametrize(
    ("element", "image", "message"),
    [
        ({"image_id": 2}, {}, NO_DATA),
        ({"image_id": "one"}, {}, NO_DATA),
        ({"image_id": None}, {}, "image_id: expected text or a whole number, got None"),
        ({"image_id": 1.5}, {}, "image_id: expected text or a whole number, got 1.5"),
        ({"image_id": 2**70}, {}, "image_id: expected text or a whole number, got 1.18"),
        ({}, {"width": 0}, "width"),
        ({}, {"height": "100"}, "height"),
        ({}, {"url": None}, "url"),
        ({"objects": {}, "regions": "none"}, {}, "expected a list"),
        ({"objects": [5], "regions": [5]}, {}, "got 5"),
        ({"objects": [thing("cat", w=None)], "regions": [region("cat", width=None)]}, {}, "expected a box"),
        ({"objects": [thing("cat", x="1")], "regions": [region("cat", x="1")]}, {}, "expected a box"),
        ({"objects": [thing("cat", x=True)], "regions": [region("cat", x=True)]}, {}, "expected a box"),
        ({"objects": [thing()], "regions": [region(None)]}, {}, "expected "),
        ({"objects": [thing(" ")], "regions": [region(" ")]}, {}, "expected "),
        ({"objects": [thing(5)], "regions": [region(5)]}, {}, "expected "),
    ],
)
@pytest.mark.parametrize("task", READ)
def test_what_cannot_be_used_is_rejected_alone(
    tmp_path: Path, task: str, element: dict[str, Any], image: dict[str, Any], message: str
) -> None:
    whole = {"image_id": 1, "objects": [thing("cat")], "regions": [region("cat")]}
    other = {**whole, "image_id": 3}
    records = read(tmp_path, [other, {**whole, **element}, other], task, [{**data(), **image}, data(3)])
    assert [found_one if isinstance(found_one, str) else "" for found_one in found(records)] == ["", "bad_record", ""]
    assert message in records[1][1]  # type: ignore[index]


@pytest.mark.parametrize("task", READ)
def test_elements_that_are_not_json_are_rejected_alone(tmp_path: Path, task: str) -> None:
    good = json.dumps({"image_id": 1, "objects": [thing("cat")], "regions": [region("cat")]})
    records = read(tmp_path, f"[{good}, {good.replace('10', '1O')}, 5, null, {good}]", task)
    assert [one if isinstance(one, str) else "" for one in found(records)] == [
        *("", "bad_json", "bad_record", "bad_record", "")
    ]


def test_an_image_of_image_data_that_is_not_json_rejects_its_records(tmp_path: Path) -> None:
    elements = [{"image_id": number, "regions": [region("cat")]} for number in (1, 2, 3)]
    images = json.dumps([data(1), data(2), data(3)]).replace('"image_id": 2', '"image_id": 2x')
    assert [isinstance(one, str) for one in found(read(tmp_path, elements, "REG", images))] == [False, True, False]


@pytest.mark.parametrize(
    ("task", "elements", "images", "error", "message"),
    [
        ("DET", [{"id": 1, "regions": [region("a")]}], [data()], SettingsError, "DET needs objects.json"),
        ("REG", [{"id": 1, "objects": []}], [data()], SettingsError, "REG needs region_descriptions.json"),
        ("VG", [{"id": 1, "objects": []}], [data()], SettingsError, "VG needs region_descriptions.json"),
        ("RANDDET", [{"id": 1, "objects": []}], [data()], SettingsError, "supports DET, REG, VG, not RANDDET"),
        ("DET", [{"id": 1, "objects": []}], [data(1), data(2), data(1)], DataError, "image_data.json.* image_id 1"),
        ("DET", [{"id": 1, "objects": []}], json.dumps([data()])[:-1], DataError, "image_data.json: truncated"),
        ("DET", json.dumps([{"id": 1, "objects": []}] * 2)[:-1], [data()], DataError, "objects.json: truncated"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, task: str, elements: object, images: object, error: type[Exception], message: str
) -> None:
    annotation = write(tmp_path, {"objects.json": elements, "image_data.json": images})
    with pytest.raises(error, match=message):
        read_source(annotation, task)


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """Three images in the two folders that they are published in, with objects and regions."""
    folders = {1: "VG_100K_2", 2: "VG_100K", 3: "VG_100K"}
    for item, folder in folders.items():
        (tmp_path / "images" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), (item, 0, 0)).save(tmp_path / f"images/{folder}/{item}.jpg")
    things = [thing("cat"), thing("dog", x=100)]
    files = {
        "image_data.json": [data(item, folder) for item, folder in folders.items()],
        "objects.json": [{"image_id": item, "objects": things} for item in folders],
        "region_descriptions.json": [{"id": item, "regions": [region("a cat")] * 2} for item in folders],
    }
    write(tmp_path, files)
    return tmp_path


def lines(root: str) -> str:
    return "".join(f"{task} & {file} & {root}\n" for task, file in READ.items())


@pytest.mark.parametrize("layout", ["two", "first", "second", "one", "both"])
def test_images_in_two_folders_or_one(
    genome: Path, layout: str, prep: Prep, lock_of: Callable[[Path], dict[str, Any]]
) -> None:
    """Unpacked from the archives; all in either folder; all in a folder of another name; one folder given as root."""
    images, root = genome / "images", "images"
    if layout != "two":
        target = {"first": images / "VG_100K", "second": images / "VG_100K_2"}.get(layout, genome / "all")
        target.mkdir(exist_ok=True)
        for path in list(images.glob("*/*.jpg")):
            if path.parent != target:
                shutil.move(path, target)
        root = {"one": "all", "both": "."}.get(layout, "images")
    if layout == "both":
        (genome / "all").rename(genome / "VG_100K")
    (genome / "m.txt").write_text(lines(root))
    built = prep("build", "--manifest", genome / "m.txt", "--data-root", genome, "--out", genome / "out")
    assert built.returncode == 0, built.stderr
    found_of = {source["tag"]: (source["samples"], source["rejected"]) for source in lock_of(genome / "out")["sources"]}
    assert found_of == {"DET": (3, {}), "REG": (6, {}), "VG": (3, {})}


def test_without_image_data_nothing_is_made(genome: Path, prep: Prep) -> None:
    (genome / "image_data.json").unlink()
    (genome / "m.txt").write_text(lines("images"))
    built = prep("build", "--manifest", genome / "m.txt", "--data-root", genome, "--out", genome / "out")
    assert built.returncode == 2
    said = built.stderr.splitlines()
    assert len(said) == 3
    assert all("needs image_data.json (or image_data.json.gz, image_data.json.zst)" in line for line in said)
    assert not (genome / "out").exists()
