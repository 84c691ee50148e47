"""YOLO's sets as people have them: `data.yaml` in all its forms, boxes, outlines, keypoints, and what breaks them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from griffon_prep.readers import yolo as yolo_format
from griffon_prep.readers.base import AnnotationFiles, Reader
from griffon_prep.readers.yolo import scan
from griffon_prep.records import Record, Rejected, in_pixels
from griffon_prep.sources.sized_records import ImageOnce, sized
from griffon_shards.support.errors import DataError, SettingsError

from .folder_files import CAT, DOG, SIZE_PX, write_files, yolo
from .reading import read_source

BOX = "0 0.5 0.5 0.25 0.5\n"
IN_PIXELS = (75.0, 25.0, 125.0, 75.0)
Boxes = list[tuple[str, tuple[float, ...]]]


def boxes_px(record: Record | tuple[str, str]) -> Boxes:
    """The boxes of a record in pixels of an image of 200x100."""
    assert isinstance(record, Record), record
    assert (record.width_px, record.units_per_side) == (0, 1)
    sized = in_pixels(
        Record(
            record_no=0,
            image_path="",
            width_px=SIZE_PX[0],
            height_px=SIZE_PX[1],
            units_per_side=1,
            regions=record.regions,
        )
    )
    return [(region.phrase, region.box_xyxy_px) for region in sized.regions]


def read(folder: Path, files: Mapping[str, object], **options: str) -> list[Record | tuple[str, str]]:
    return read_source(write_files(folder, files), "DET", **options)[0]


def only(folder: Path, label: str, more: str = "") -> Boxes:
    (record,) = read(folder, yolo({"a": label}, more=more))
    return boxes_px(record)


@pytest.mark.parametrize("annotation", ["data.yaml", "."])
@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_an_image_is_a_record(tmp_path: Path, task: str, annotation: str) -> None:
    write_files(tmp_path, yolo({"b": BOX, "a": "1 0.5 0.5 1 1\n", "c": ""}))
    records, scan = read_source(tmp_path / annotation, task)
    assert [boxes_px(record) for record in records] == [[(DOG, (0, 0, 200, 100))], [(CAT, IN_PIXELS)], []]
    paths = [record.image_path for record in records if isinstance(record, Record)]
    assert paths == ["images/train/a.jpg", "images/train/b.jpg", "images/train/c.jpg"]
    assert scan.vocabulary == (CAT, DOG)


@pytest.mark.parametrize(
    ("label", "boxes"),
    [
        ("0 0.5 0.5 0.25 0.5", [(CAT, IN_PIXELS)]),
        ("\ufeff0.0  0.5\t0.5 +.25 5e-1 \r\n\r\n", [(CAT, IN_PIXELS)]),
        ("0,0.5,0.5,0.25,0.5\n1, 0.5, 0.5, 1, 1", [(CAT, IN_PIXELS), (DOG, (0, 0, 200, 100))]),
        # An outline, the corners of an oriented box, and a box between them.
        ("1 0.1 0.2 0.3 0.4 0.05 0.9\n0 0.5 0.5 0.25 0.5", [(DOG, (10, 20, 60, 90)), (CAT, IN_PIXELS)]),
        ("1 0.5 0.1 0.6 0.2 0.5 0.3 0.4 0.2", [(DOG, (80, 10, 120, 30))]),
        # Converters overshoot a little; rendering clamps such boxes.
        ("0 0.5 0.5 1.004 1", [(CAT, (-0.4, 0, 200.4, 100))]),
    ],
)
def test_lines_of_every_form(tmp_path: Path, label: str, boxes: Boxes) -> None:
    assert only(tmp_path, label) == boxes


def test_keypoints_are_not_an_outline(tmp_path: Path) -> None:
    label = f"{BOX.strip()} 0.4 0.4 2 0 0 0\n{BOX}"
    assert only(tmp_path, label, "kpt_shape: [2, 3]\n") == [(CAT, IN_PIXELS)] * 2


@pytest.mark.parametrize(
    ("label", "detail"),
    [
        ("2 0.5 0.5 0.25 0.5", "a.txt, line 1: class 2 is not in names of data.yaml, which has 0 to 1"),
        ("-1 0.5 0.5 0.25 0.5", "class -1 is not in names"),
        ("0.5 0.5 0.5 0.25 0.5", "class 0.5 is not in names"),
        (f"{BOX}0 100 50 50 50", "line 2: expected fractions of the image's sides, from 0 to 1, got 100"),
        ("0 0.5 0.5 0.25 -0.5", "got -0.5"),
        ("0 0.5 0.5 0.25 nan", "expected a number, got 'nan'"),
        ("0 0.5 0.5 0.25 1e999", "got inf"),
        ("0 0.5 0.5 0.2_5 0.5", "expected a number, got '0.2_5'"),
        ("cat 0.5 0.5 0.25 0.5", "expected a number, got 'cat'"),
        ("0 0.5 0.5 0.25", "expected 5 columns for a box, or 7, 9, ... for an outline, got 4"),
        ("0 0.5 0.5 0.25 0.5 0.9", "for a box, which has no confidence: remove the sixth column"),
        ("0 0.5 0.5 0.25 0.5 0.9 0.1 0.2", "got 8"),
        ("0 0,1 0,1 0,1 0,1", "expected a number, got '0 0'"),  # commas are decimal points, and 9 numbers an outline
        ("0,0,1,0,1,0,1,0,1", "expected 5 numbers separated by spaces"),
        (b"0 0.5 0.5 0.25 0.5 \xff", "not UTF-8 at byte 19"),
        ("\0\0\0\0", "expected a number"),
    ],
)
def test_what_is_no_label_rejects_its_image_alone(tmp_path: Path, label: object, detail: str) -> None:
    records = read(tmp_path, yolo({"a": label, "b": BOX}))
    assert boxes_px(records[1]) == [(CAT, IN_PIXELS)]
    reason, actual = records[0]  # type: ignore[misc]
    assert (reason, detail in actual) == ("bad_record", True), actual


@pytest.mark.parametrize("kind", ["5 0.5 0.5 0.2 0.2", f"{BOX.strip()} 0.4 0.4 2"])
def test_keypoints_of_another_number(tmp_path: Path, kind: str) -> None:
    (rejected,) = read(tmp_path, yolo({"a": kind}, more="kpt_shape: [2, 3]\n"))
    reason, detail = rejected  # type: ignore[misc]
    assert reason == "bad_record"
    assert "expected 11 columns by kpt_shape" in detail or "class 5" in detail


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{0: cat, 1: dog}", (CAT, DOG)),
        ("{'1': dog, '0': cat}", (CAT, DOG)),
        ("\n- cat\n- dog", (CAT, DOG)),
        ("[yes, 7]", ("7", "yes")),  # YAML 1.1 would make a truth value of one
        ("[null, 1.50]", ("1.50", "null")),
        ("{0: 'traffic light', 7: 猫}", ("traffic light", "猫")),
    ],
)
def test_names(tmp_path: Path, names: str, expected: tuple[str, ...]) -> None:
    assert read_source(write_files(tmp_path, yolo({"a": BOX}, names=names)), "DET")[1].vocabulary == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("train: images/train\nnames: [cat", r"data\.yaml: not YAML"),
        ("train: images/train\nnames: cat\n", "names: expected a list or a mapping, got 'cat'"),
        ("train: images/train\nnames: []\n", "names: has no classes"),
        ("train: images/train\nnames: [cat, '']\n", "class 1 has no name"),
        ("train: images/train\nnames: {0: cat, 0: dog}\n", r"line 2: '0' is given twice"),
        ("train: images/train\nnames: {0: cat, '00': dog}\n", "class 0 is given twice"),
        ("train: images/train\nnames: {a: cat}\n", "names: expected whole numbers from 0 as keys, got 'a'"),
        ("train: images/train\nnames: [[cat]]\n", "class 0: expected text"),
        ("train: images/train\ntrain: images/val\nnames: [cat]\n", r"line 2: 'train' is given twice"),
        ("train: {a: b}\nnames: [cat]\n", "train: expected a path or a list of paths"),
        ("train: images/train\nkpt_shape: [a, 3]\nnames: [cat]\n", "kpt_shape: expected two whole numbers"),
        ("train: images/train\nnames: &a [*a]\n", "class 0: expected text"),
        ("train: images/train\nnames: !!python/object/apply:os.system [exit]\n- x\n", "not YAML"),
        ("train: images/train\nnames: " + "[" * 5000, "not YAML"),
    ],
)
def test_a_data_yaml_that_is_damaged_is_named(tmp_path: Path, data: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, {**yolo({"a": BOX}), "data.yaml": data}, format="yolo")


def test_nothing_in_a_data_yaml_is_run(tmp_path: Path) -> None:
    data = f"train: images/train\nnames: !!python/object/apply:pathlib.Path.touch [{tmp_path}/ran]\n"
    (record,) = read(tmp_path, {**yolo({"a": "0 0.5 0.5 0.25 0.5"}), "data.yaml": data})
    assert boxes_px(record) == [(f"{tmp_path}/ran", IN_PIXELS)]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        "train: images/train",
        "path: /content/mine\ntrain: images/train",  # of another machine
        "path: ../datasets/mine\ntrain: ./images/train/",
        "train: ../images/train",  # Roboflow
        "train: /content/mine/images/train",
        "train: images\\train",
        "train: [images/train]",
        "train: D:\\data\\images\\train",
        "train: list.txt",
        "train: [list.txt, images/train]",
        "train: windows.txt",
        "train: far.txt",
    ],
)
def test_where_the_images_are(tmp_path: Path, data: str) -> None:
    lists = {
        "list.txt": "\ufeff./images/train/b.jpg\nimages/train/a.jpg\r\n\nimages/train/a.jpg\n# no image\n",
        "windows.txt": "D:\\data\\images\\train\\a.jpg\r\nD:\\data\\images\\train\\b.jpg\r\n",
        "far.txt": "/home/other/mine/images/train/b.jpg\n/home/other/mine/images/train/a.jpg",
    }
    files = {**yolo({"a": BOX, "b": BOX}), **lists, "data.yaml": f"{data}\nnames: [cat]\n"}
    records = read(tmp_path, files)
    assert [record.image_path for record in records if isinstance(record, Record)] == [
        "images/train/a.jpg",
        "images/train/b.jpg",
    ]
    assert [boxes_px(record) for record in records] == [[(CAT, IN_PIXELS)]] * 2


def test_a_datasets_folder_beside_the_file(tmp_path: Path) -> None:
    files = {f"datasets/coco8/{name}": content for name, content in yolo({"a": BOX}).items() if name != "data.yaml"}
    data = "path: coco8\ntrain: images/train\nnames: [cat]\n"
    (record,) = read(tmp_path, {**files, "data.yaml": data})
    assert isinstance(record, Record)
    assert record.image_path == "images/train/a.jpg"


def test_labels_beside_images_without_a_folder_of_that_name(tmp_path: Path) -> None:
    data = "train: train\nnames: [cat]\n"
    (record,) = read(tmp_path, {"data.yaml": data, "train/x/a.png": None, "train/x/a.txt": BOX})
    assert boxes_px(record) == [(CAT, IN_PIXELS)]


def test_hidden_files_and_others_are_no_images(tmp_path: Path) -> None:
    more = {"images/train/._a.jpg": b"\0", "images/train/notes.txt": "x", "labels/train.cache": b"\0"}
    assert len(read(tmp_path, {**yolo({"a": BOX}), **more})) == 1


def test_splits(tmp_path: Path) -> None:
    files = yolo({"a": BOX}, more="val: images/val\ntest:\n")
    files |= {"images/val/v.jpg": None, "labels/val/v.txt": "1 0.5 0.5 1 1"}
    assert boxes_px(read(tmp_path, files)[0]) == [(CAT, IN_PIXELS)]
    assert boxes_px(read(tmp_path, files, split="train")[0]) == [(CAT, IN_PIXELS)]
    assert boxes_px(read(tmp_path, files, split="val")[0]) == [(DOG, (0, 0, 200, 100))]
    with pytest.raises(
        SettingsError, match=r"data\.yaml: has no split 'test', only train, val; choose one with split="
    ):
        read(tmp_path, files, split="test")


def test_an_image_without_a_label_has_no_objects_and_is_noted(tmp_path: Path) -> None:
    records, scan = read_source(write_files(tmp_path, yolo({"a": BOX, "b": None})), "DET")
    assert [boxes_px(record) for record in records] == [[(CAT, IN_PIXELS)], []]
    assert scan.notes == (
        "1 of 2 images have no label, such as images/train/b.jpg; they count as images without objects",
    )


def test_no_label_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none of 2 images has a label; expected labels/train/a\.txt for images"):
        read(tmp_path, yolo({"a": None, "b": None}))


def test_an_image_that_is_listed_and_not_there_is_not_one_without_objects(tmp_path: Path) -> None:
    files = {**yolo({"a": BOX}), "list.txt": "images/train/a.jpg\nimages/train/gone.jpg\n"}
    files["data.yaml"] = "train: list.txt\nnames: [cat]\n"
    records = read(tmp_path, files)
    assert records[1] == ("picture_not_found", "images/train/gone.jpg: neither the image nor its label is there")


def test_a_list_may_not_lead_out_of_the_set(tmp_path: Path) -> None:
    """Labels out there would not be part of the hash of the source."""
    files: dict[str, object] = {f"set/{name}": content for name, content in yolo({"a": BOX}, train="list.txt").items()}
    files |= {"set/list.txt": "images/train/a.jpg\n../other/b.jpg\n", "other/b.jpg": None, "other/b.txt": BOX}
    with pytest.raises(
        DataError, match=r"list\.txt, line 2: '\.\./other/b\.jpg' is outside .*set; let path of data\.yaml"
    ):
        read_source(write_files(tmp_path, files) / "set", "DET")


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"train: there is no .*images/gone, nor images/gone in the file's own folder"
    ):
        read(tmp_path, yolo({"a": BOX}, train="images/gone"))
    (tmp_path / "images/gone").mkdir()
    with pytest.raises(DataError, match=r"images/gone: has no images; correct the split's path in .*data\.yaml"):
        read(tmp_path, yolo({"a": BOX}, train="images/gone"))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_that_viewers_turn_is_annotated_as_shown_or_rejected(tmp_path: Path, orientation: int) -> None:
    """Fractions do not tell which way up an image was seen, as the sides of a record would."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_files(tmp_path, {**yolo({"a": BOX}), "images/train/a.jpg": b""})
    Image.new("RGB", SIZE_PX).save(tmp_path / "images/train/a.jpg", exif=exif)
    for upright, accepted in ((True, True), (False, orientation == 1)):
        reader = read_only(tmp_path)
        if accepted:
            record = sized(reader.read(0), ImageOnce(str(tmp_path)), upright=upright)
            sides_px = SIZE_PX if orientation != 6 else SIZE_PX[::-1]
            assert (record.width_px, record.height_px) == sides_px
        else:
            with pytest.raises(Rejected, match=rf"a.jpg: its EXIF orientation is {orientation}.*add orientation=shown"):
                sized(reader.read(0), ImageOnce(str(tmp_path)), upright=upright)


def read_only(folder: Path) -> Reader:
    """A reader of a set that was written, with its index."""
    inputs = AnnotationFiles(
        annotation=folder / "data.yaml", companions={}, task="DET", options={}, work=folder / "work"
    )
    inputs.work.mkdir(exist_ok=True)
    scan(inputs)
    return yolo_format.Reader(inputs)


def test_labels_without_an_image_are_noted(tmp_path: Path) -> None:
    """Otherwise an unfinished download would look complete."""
    files = yolo({"a": BOX, "b": BOX, "c": BOX})
    write_files(tmp_path, {**files, "labels/train/classes.txt": "cat"})
    (tmp_path / "images/train/b.jpg").unlink()
    _, scan = read_source(tmp_path / "data.yaml", "DET")
    (note,) = scan.notes
    assert note.startswith("1 labels have no image, such as labels/train/b.txt")


def test_lines_of_a_list_that_are_no_images_are_noted(tmp_path: Path) -> None:
    write_files(tmp_path, yolo({"a": BOX, "b": BOX}))
    data = (tmp_path / "data.yaml").read_text(encoding="utf-8")
    (tmp_path / "data.yaml").write_text(data.replace("images/train", "list.txt"), encoding="utf-8")
    (tmp_path / "list.txt").write_text("images/train/a.jpg\n\nimages/train/b\n")
    records, scan = read_source(tmp_path / "data.yaml", "DET")
    assert len(records) == 1
    assert [note for note in scan.notes if note.startswith("1 lines are skipped") and "'images/train/b'" in note]
