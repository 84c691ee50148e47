"""labelme's files: shapes of every type, paths of other systems, and what is left empty."""

from pathlib import Path
from typing import Any

import pytest

from griffon_prep.images import read_image
from griffon_prep.records import Record, in_pixels
from griffon_prep.sources.sized_records import image_file
from griffon_shards.support.errors import SettingsError

from .folder_files import CAT, DOG, labelme, shape, write_files
from .reading import read_source

CORNERS = (10, 20, 40, 60)
Box = tuple[float, ...]


def only(folder: Path, content: object) -> Record:
    ((record,), _) = read_source(write_files(folder, {"json/a.json": content}) / "json", "DET")
    assert isinstance(record, Record), record
    return record


def regions(record: Record | tuple[str, str]) -> list[tuple[str, Box]]:
    assert isinstance(record, Record), record
    return [(region.phrase, region.box_xyxy_px) for region in record.regions]


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_a_file_is_a_record(tmp_path: Path, task: str) -> None:
    files = {
        "b/x.json": labelme(shape(DOG, [[0, 0], [200, 100]])),
        "a.json": labelme(shape(CAT, [[10, 20], [40, 60]])),
        "b/y.json": labelme(),
        "a.jpg": None,
    }
    records, scan = read_source(write_files(tmp_path, files), task)
    assert [regions(record) for record in records] == [[(CAT, CORNERS)], [(DOG, (0, 0, 200, 100))], []]
    assert (scan.vocabulary, scan.notes) == ((CAT, DOG), ())


@pytest.mark.parametrize(
    ("kind", "points", "box"),
    [
        ("rectangle", [[40, 20], [10, 60]], CORNERS),  # drawn from any corner
        ("rectangle", [[40, 60], [10, 20]], CORNERS),
        ("rectangle", [[10, 20], [40, 20], [40, 60], [10, 60]], CORNERS),  # X-AnyLabeling
        ("polygon", [[25, 20], [40, 40], [25, 60], [10, 40]], CORNERS),
        (None, [[25, 20], [40, 40], [25, 60.5], [10, 40]], (10, 20, 40, 60.5)),  # of old versions
        ("circle", [[25, 40], [28, 44]], (20, 35, 30, 45)),
        ("mask", [[10, 20], [39, 59]], CORNERS),
        ("rotation", [[25, 20], [40, 40], [25, 60], [10, 40]], CORNERS),
    ],
)
def test_shapes(tmp_path: Path, kind: object, points: object, box: Box) -> None:
    assert regions(only(tmp_path, labelme(shape(CAT, points, kind)))) == [(CAT, box)]


def test_a_shape_without_a_type_is_a_polygon(tmp_path: Path) -> None:
    drawn = shape(CAT, [[10, 20], [40, 20], [40, 60]])
    del drawn["shape_type"], drawn["group_id"], drawn["flags"]
    assert regions(only(tmp_path, labelme(drawn))) == [(CAT, CORNERS)]


def test_shapes_of_a_group_are_one_object(tmp_path: Path) -> None:
    parts = [
        shape(CAT, [[10, 20], [20, 30]], group_id=1),
        shape(DOG, [[0, 0], [5, 5]], group_id=1),
        shape(CAT, [[30, 30], [40, 60]], group_id=1),
        shape(CAT, [[1, 2], [3, 4]], group_id=2),
        shape(CAT, [[1, 2], [3, 4]]),
    ]
    expected = [(CAT, CORNERS), (DOG, (0, 0, 5, 5)), (CAT, (1, 2, 3, 4)), (CAT, (1, 2, 3, 4))]
    assert regions(only(tmp_path, labelme(*parts))) == expected


def test_fractions(tmp_path: Path) -> None:
    folder = write_files(tmp_path, {"a.json": labelme(shape(CAT, [[0.05, 0.2], [0.2, 0.6]]))})
    (record,) = read_source(folder, "DET", boxes="fraction")[0]
    assert isinstance(record, Record)
    assert regions(in_pixels(record)) == [(CAT, CORNERS)]
    with pytest.raises(SettingsError, match="give a unit alone"):
        read_source(folder, "DET", boxes="fraction+xywh")


def test_points_and_lines_are_not_called_absent(tmp_path: Path) -> None:
    drawn = [shape(CAT, [[10, 20], [40, 60]]), shape(DOG, [[7, 7]], "point"), shape("road", [[1, 1], [9, 9]], "line")]
    ((record,), scan) = read_source(write_files(tmp_path, {"a.json": labelme(*drawn)}), "DET")
    assert regions(record) == [(CAT, CORNERS)]
    assert isinstance(record, Record)
    assert record.never_absent_phrases == (DOG, "road")
    (note,) = scan.notes
    assert note == "2 points and lines have no box; the category of such a shape is not called absent from its image"


@pytest.mark.parametrize("sides", [{"imageWidth": None, "imageHeight": None}, {"imageHeight": None}])
def test_a_size_that_is_not_stated(tmp_path: Path, sides: dict[str, Any]) -> None:
    record = only(tmp_path, labelme(shape(CAT, [[10, 20], [40, 60]]), **sides))
    assert (record.width_px, record.height_px) == (0, 0)


@pytest.mark.parametrize(
    ("image_path", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("..\\images\\a.jpg", "images/a.jpg"),  # Windows
        ("../images/sub/b.jpg", "images/sub/b.jpg"),
        ("C:\\data\\b.jpg", "b.jpg"),
        ("/home/other/b.jpg", "b.jpg"),
        ("gone.png", "a.png"),  # renamed with its JSON file
    ],
)
def test_where_the_image_is(tmp_path: Path, image_path: str, image: str) -> None:
    record = only(tmp_path, labelme(imagePath=image_path))
    write_files(tmp_path / "root", {image: None})
    assert record.image_path is not None
    found = read_image(str(tmp_path / "root"), record.image_path, record.image_elsewhere)
    assert found.data == (tmp_path / "root" / image).read_bytes()


def test_folders_that_repeat_the_names_of_images(tmp_path: Path) -> None:
    names = ("left/x/1.jpg", "x/1.jpg")
    files = {
        f"labels/{name[:-4]}.json": labelme(imagePath="../" * name.count("/") + f"../images/{name}") for name in names
    }
    write_files(tmp_path, {**files, **{f"images/{name}": name for name in names}})
    records, _ = read_source(tmp_path / "labels", "DET")
    read = [image_file(str(tmp_path / "images"), record) for record in records if isinstance(record, Record)]
    assert [file.data.decode() for file in read] == list(names)


def test_an_embedded_image_is_not_read(tmp_path: Path) -> None:
    record = only(tmp_path, labelme(shape(CAT, [[10, 20], [40, 60]]), imageData="bm90IGFuIGltYWdl" * 1000))
    assert regions(record) == [(CAT, CORNERS)]
    assert record.image_bytes is None


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        ('{"shapes": [', "bad_json", ""),
        ("[]", "bad_record", "expected an object"),
        ('{"shapes": [], "imagePath": "a.jpg", "shapes": []}', "bad_record", "the key 'shapes' twice"),
        (labelme(imagePath=None), "bad_record", "imagePath: expected text, got None"),
        (labelme(shapes=None), "bad_record", "shapes: expected a list"),
        (labelme(imageWidth="200"), "bad_record", "imageWidth: expected a whole number"),
        (labelme(shape("", [[1, 2], [3, 4]])), "bad_record", "label: expected text"),
        (labelme(shape(None, [[1, 2], [3, 4]])), "bad_record", "label: expected text"),
        (labelme(shape(CAT, [[1, 2]])), "bad_record", "shape_type 'rectangle' with 1 points is not supported"),
        (labelme(shape(CAT, [[1, 2], [3, 4]], "polygon")), "bad_record", "'polygon' with 2 points"),
        (labelme(shape(CAT, [[1, 2], [3, 4]], "cuboid")), "bad_record", "shape_type 'cuboid' with 2 points"),
        (labelme(shape(CAT, [[1, 2], [3, "4"]])), "bad_record", "points: expected two numbers"),
        (labelme(shape(CAT, [[1, 2], [3, True]])), "bad_record", "points: expected two numbers"),
        (labelme(shape(CAT, [[1, 2], [3, float("nan")]])), "bad_record", "points: expected pixels"),
        (labelme(shape(CAT, [[1, 2], [3, 10**400]])), "bad_record", ""),
        (labelme(shape(CAT, [[1, 2], [3, 4]], group_id=[1])), "bad_record", "group_id: expected a number or null"),
    ],
)
def test_what_cannot_be_used_is_rejected_alone(tmp_path: Path, content: object, reason: str, detail: str) -> None:
    files = {"a.json": content, "b.json": labelme(shape(CAT, [[10, 20], [40, 60]]))}
    records, _ = read_source(write_files(tmp_path, files), "DET", format="labelme")
    assert regions(records[1]) == [(CAT, CORNERS)]
    actual_reason, actual = records[0]  # type: ignore[misc]
    assert actual_reason in (reason, "bad_json")
    assert actual.startswith("a.json: ") and detail in actual, actual


def test_a_folder_of_other_json_is_not_taken_for_it(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a folder without data\.yaml, XML, Parquet or labelme's JSON files"):
        read_source(write_files(tmp_path, {"a.json": {"boxes": []}, "b.txt": "x"}), "DET")
