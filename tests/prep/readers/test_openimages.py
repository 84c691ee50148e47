"""Open Images' CSV files of every version: boxes, groups, verified labels, and files that are not sorted."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from griffon_prep.readers import csv_groups, find_format
from griffon_prep.records import Record
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_prep.sources.compressed import opened
from griffon_prep.sources.resolve import companions_of
from griffon_shards.support.errors import DataError, SettingsError

from ..rendering import BARE, filling, texts
from .folder_files import write_files
from .reading import read_source

HEAD = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
BOXES = f"""{HEAD}
0a01,xclick,/m/cat,1,0.05,0.2,0.2,0.6,0,0,0,0,0
0a01,activemil,/m/dog,1,0.5,1,0,0.5,-1,-1,-1,-1,-1
f002,xclick,/m/cat,1,0.25,0.5,0,1,0,0,1,0,0
f002,xclick,/m/emu,1,0,0.25,0,1,0,0,0,1,0
"""
CLASSES = "/m/cat,Cat\n/m/dog,Dog\n/m/emu,Emu\n/m/cow,Cow\n"
LABELS = """ImageID,Source,LabelName,Confidence
0a01,verification,/m/cat,1
0a01,verification,/m/cow,0
0a01,crowdsource-verification,/m/emu,0
0a01,verification,/m/emu,1
0a01,verification,/m/unknown,0
0b00,verification,/m/cat,0
"""
CAT_BOX = ("Cat", (0.05, 0.2, 0.2, 0.6), False)
Files = Mapping[str, object]


def files(boxes: str = BOXES, classes: str = CLASSES, labels: str | None = LABELS) -> dict[str, object]:
    written: dict[str, object] = {"train-annotations-bbox.csv": boxes, "class-descriptions-boxable.csv": classes}
    return {**written, **({} if labels is None else {"train-annotations-human-imagelabels-boxable.csv": labels})}


def read(folder: Path, of: Files, task: str = "DET") -> list[Record | tuple[str, str]]:
    return read_source(write_files(folder, of), task)[0]


def regions(record: Record | tuple[str, str]) -> list[tuple[str, tuple[float, ...], bool]]:
    assert isinstance(record, Record), record
    return [(region.phrase, region.box_xyxy_px, region.crowd) for region in record.regions]


@pytest.mark.parametrize("annotation", ["train-annotations-bbox.csv", "."])
@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_an_image_is_a_record(tmp_path: Path, task: str, annotation: str) -> None:
    records, scan = read_source(write_files(tmp_path, files()) / annotation, task)
    assert [regions(record) for record in records] == [
        [CAT_BOX, ("Dog", (0.5, 0, 1, 0.5), False)],
        [("Cat", (0.25, 0, 0.5, 1), True), ("Emu", (0, 0, 0.25, 1), False)],  # a group; a drawing of an emu
    ]
    first, second = records
    assert isinstance(first, Record) and isinstance(second, Record)
    assert (first.image_path, first.image_elsewhere) == ("0a01.jpg", ("train_0/0a01.jpg",))
    assert (first.width_px, first.units_per_side) == (0, 1)
    assert (first.absent_phrases, first.only_these_absent) == (("Cow",), True)  # of emu, verdicts differ
    assert (second.absent_phrases, second.only_these_absent) == ((), True)
    assert (scan.vocabulary, scan.notes) == (("Cat", "Cow", "Dog", "Emu"), ())


def test_only_verified_labels_are_asked_for_as_absent(tmp_path: Path) -> None:
    record = read(tmp_path, files())[0]
    assert isinstance(record, Record)
    for seed in range(10):
        settings = RenderSettings(seed=seed, boxes="text", det_categories=80, variants=1, templates=BARE)
        source = Source(tag="DET", task="DET", vocabulary=("Cat", "Cow", "Dog", "Emu"))
        sized = Record(
            record_no=0,
            image_path="a",
            width_px=1,
            height_px=1,
            regions=record.regions,
            absent_phrases=record.absent_phrases,
            only_these_absent=True,
        )
        ((rendering,), _) = render(sized, source, settings)
        assert set(filling(rendering).split(", ")) == {"Cat", "Dog", "Cow"}
        assert texts(rendering)[1] == "Cat-[0.050,0.200,0.200,0.600]&Dog-[0.500,0.000,1.000,0.500]"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("/m/cat", '"/m/cat"'),
        lambda text: text.replace("\n0a01", "\n\n0a01", 1),
    ],
)
def test_files_of_other_systems(tmp_path: Path, change: object) -> None:
    assert callable(change)
    records = read(tmp_path, files(change(BOXES), change(CLASSES), change(LABELS)))
    assert regions(records[0])[0] == CAT_BOX
    assert records[0].absent_phrases == ("Cow",)  # type: ignore[union-attr]


def test_columns_in_another_order_and_further_ones(tmp_path: Path) -> None:
    boxes = "LabelName,YMax,XMax,YMin,XMin,ImageID,XClick1X\n/m/cat,0.6,0.2,0.2,0.05,0a01,0.1\n"
    assert [regions(record) for record in read(tmp_path, files(boxes))] == [[CAT_BOX]]


@pytest.mark.parametrize(
    ("boxes", "classes", "labels"),
    [
        (
            "oidv6-train-annotations-bbox.csv",
            "class-descriptions-boxable.csv",
            "train-annotations-human-imagelabels-boxable.csv",
        ),
        (
            "validation-annotations-bbox.csv",
            "oidv7-class-descriptions-boxable.csv",
            "validation-annotations-human-imagelabels.csv",
        ),
        (
            "train-annotations-bbox.csv",
            "class-descriptions.csv",
            "train-annotations-human-imagelabels.csv",
        ),
    ],
)
def test_names_of_the_files(tmp_path: Path, boxes: str, classes: str, labels: str) -> None:
    of = {boxes: BOXES, classes: "LabelName,DisplayName\n" + CLASSES, labels: LABELS}
    more = {"test-annotations-human-imagelabels-boxable.csv": LABELS.replace("/m/cow", "/m/emu")}
    records, scan = read_source(write_files(tmp_path, {**of, **more}) / boxes, "DET")
    assert isinstance(records[0], Record)
    assert records[0].absent_phrases == ("Cow",)
    assert scan.notes == ()


def test_without_verified_labels_nothing_is_absent(tmp_path: Path) -> None:
    records, scan = read_source(write_files(tmp_path, files(labels=None)), "DET")
    assert isinstance(records[0], Record)
    assert (records[0].absent_phrases, records[0].only_these_absent) == ((), True)
    assert "no file of verified labels is next to the boxes" in scan.notes[0]


def test_without_class_descriptions(tmp_path: Path) -> None:
    of = files()
    del of["class-descriptions-boxable.csv"]
    with pytest.raises(SettingsError, match=r"needs class-descriptions-boxable\.csv in the same folder"):
        read(tmp_path, of)


def test_rows_that_are_not_together_are_refused_with_the_remedy(tmp_path: Path) -> None:
    *lines, last = BOXES.splitlines(keepends=True)
    unsorted = "".join([lines[0], last, *lines[1:]])
    with pytest.raises(
        DataError, match=r"rows of the same ImageID are not together \(bytes .*\| LC_ALL=C sort -s -t, -k1,1"
    ):
        read(tmp_path, files(unsorted))


def test_groups_over_pieces_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(tmp_path, files())
    for piece in range(1, 60, 7):
        monkeypatch.setattr(csv_groups, "_PIECE_BYTES", piece)
        if piece > 30:  # as long as a line may be in four pieces
            assert read(tmp_path, files()) == expected


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("0a01,xclick,/m/cat", "0a01,xclick,/m/lion", "LabelName: '/m/lion' is not in the class descriptions"),
        ("0.05,0.2,0.2,0.6", "0.05,0.2,0.2,x", "YMax: expected a number, got 'x'"),
        ("0.05,0.2,0.2,0.6", "50,200,20,60", "expected fractions of the image's sides, from 0 to 1, got 50"),
        ("0.05,0.2,0.2,0.6", "0.05,0.2,0.2,nan", "YMax: expected a number"),
        ("0.6,0,0,0,0,0", "0.6,0,0,2,0,0", "IsGroupOf: expected 1, 0 or -1, got '2'"),
        ("0.6,0,0,0,0,0", "0.6,0,0,0,0", "a row has 12 fields, expected 13"),
    ],
)
def test_a_row_that_cannot_be_used_rejects_its_image_alone(tmp_path: Path, old: str, new: str, detail: str) -> None:
    records = read(tmp_path, files(BOXES.replace(old, new, 1)))
    assert len(regions(records[1])) == 2
    reason, actual = records[0]  # type: ignore[misc]
    assert (reason, detail in actual) == ("bad_record", True), actual


@pytest.mark.parametrize("confidence", ["", "x", "-1", "2"])
def test_a_label_without_a_verdict_rejects_its_image(tmp_path: Path, confidence: str) -> None:
    records = read(tmp_path, files(labels=LABELS.replace("/m/cow,0", f"/m/cow,{confidence}")))
    assert records[0][0] == "bad_record"  # type: ignore[index]
    assert "Confidence: expected" in records[0][1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (CLASSES + "/m/cat,Lion\n", r"line 5: '/m/cat' is called 'Cat' and 'Lion'; remove the wrong line"),
        (CLASSES + "/m/lion\n", "line 5: expected the id of a class and its name"),
        (CLASSES + "/m/lion,\n", "line 5: expected the id of a class and its name"),
        ("LabelName,DisplayName\n", "has no classes"),
        (CLASSES + '/m/lion,"Lion', "damaged, not CSV"),
    ],
)
def test_class_descriptions_that_are_damaged_are_named(tmp_path: Path, classes: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"class-descriptions-boxable\.csv.*{message}"):
        read(tmp_path, files(classes=classes))


def test_names_with_commas(tmp_path: Path) -> None:
    record = read(tmp_path, files(classes=CLASSES.replace("Cat", '"Cat, the ""big"" one"')))[0]
    assert regions(record)[0][0] == 'Cat, the "big" one'


def test_labels_in_any_order_of_images(tmp_path: Path) -> None:
    head, *rows = LABELS.splitlines(keepends=True)
    records = read(tmp_path, files(labels="".join([head, rows[-1], *rows[:-1]])))
    assert isinstance(records[0], Record)
    assert records[0].absent_phrases == ("Cow",)


def test_compressed_files_are_detected_by_content(tmp_path: Path) -> None:
    of = {f"{name}.gz": gzip.compress(str(text).encode()) for name, text in files().items()}
    annotation = write_files(tmp_path, of) / "train-annotations-bbox.csv.gz"
    assert find_format(lambda: opened(annotation), str(annotation), "DET", {}) == "openimages"
    assert sorted(path.name for path in companions_of(annotation, "openimages", {}).values()) == [
        "class-descriptions-boxable.csv.gz",
        "train-annotations-human-imagelabels-boxable.csv.gz",
    ]


def test_a_comma_in_a_field_before_the_image_does_not_join_two_images(tmp_path: Path) -> None:
    head = "Note,ImageID,LabelName,XMin,XMax,YMin,YMax\n"
    rows = '"a, b",0a01,/m/cat,0,1,0,1\n"a, b",f002,/m/dog,0,1,0,1\n'
    for record in read(tmp_path, files(boxes=head + rows)):
        assert record[0] == "bad_record" and "a comma before ImageID" in record[1]  # type: ignore[index]
