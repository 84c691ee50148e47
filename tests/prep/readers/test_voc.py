"""Pascal VOC's XML as VOC, ImageNet, LabelImg and others write it, and XML that must not be followed."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from griffon_prep.build.sample_maker import SampleMaker
from griffon_prep.images import read_image
from griffon_prep.readers.voc import DIFFICULT
from griffon_prep.records import Record, in_pixels
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_prep.sources.manifest import read_manifest
from griffon_shards.support.errors import DataError, SettingsError

from ..rendering import BARE, filling, texts
from .folder_files import CAT, DOG, voc, voc_object, write_files
from .reading import read_source

BOX = (11, 21, 40, 60)
CORNERS = (10, 20, 40, 60)
Found = list[Record | tuple[str, str]]


def read(folder: Path, files: Mapping[str, object], task: str = "DET", **options: str) -> Found:
    return read_source(write_files(folder, files) / "Annotations", task, **options)[0]


def only(folder: Path, xml: object, **options: str) -> Record:
    (record,) = read(folder, {"Annotations/a.xml": xml}, **options)
    assert isinstance(record, Record), record
    return record


def regions(record: Record | tuple[str, str]) -> list[tuple[str, tuple[float, ...]]]:
    assert isinstance(record, Record), record
    return [(region.phrase, region.box_xyxy_px) for region in record.regions]


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_a_file_is_a_record(tmp_path: Path, task: str) -> None:
    files = {"b/1.xml": voc(voc_object(DOG, (1, 1, 200, 100))), "a.xml": voc(voc_object(CAT, BOX)), "c.xml": voc()}
    write_files(tmp_path, files)
    records, scan = read_source(tmp_path, task)
    assert [regions(record) for record in records] == [[(CAT, CORNERS)], [(DOG, (0, 0, 200, 100))], []]
    assert [(record.width_px, record.height_px) for record in records if isinstance(record, Record)] == [(200, 100)] * 3
    assert (scan.vocabulary, scan.notes) == ((CAT, DOG), ())


@pytest.mark.parametrize(
    ("item", "box"),
    [
        (voc_object(CAT, (1, 1, 200, 100)), (0, 0, 200, 100)),  # the first pixel to the last
        (voc_object(CAT, (5, 5, 5, 5)), (4, 4, 5, 5)),  # one pixel
        (voc_object(CAT, ("11.5", "21", "45.70000076293945", " 6e1 ")), (10.5, 20, 45.70000076293945, 60)),  # VOC2012
        (voc_object(f"\n  {CAT}\n ", BOX, "<pose>Left</pose><truncated>1</truncated>"), CORNERS),
        # Other programs write the edges in other orders.
        (
            "<object><bndbox><xmin>11</xmin><xmax>40</xmax><ymin>21</ymin><ymax>60</ymax></bndbox><name>cat</name></object>",
            CORNERS,
        ),
        # A person's parts have boxes of their own, before or after that of the person.
        (
            voc_object(
                CAT,
                BOX,
                "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>",
            ),
            CORNERS,
        ),
    ],
)
def test_boxes(tmp_path: Path, item: str, box: tuple[float, ...]) -> None:
    assert regions(only(tmp_path, voc(item))) == [(CAT, box)]


def test_pixels_from_0(tmp_path: Path) -> None:
    xml = voc(voc_object(CAT, (0, 20, 40, 60)))
    _, scan = read_source(write_files(tmp_path, {"Annotations/a.xml": xml}) / "Annotations", "DET")
    assert "of 1 box, 1 begins before pixel 1, the first of VOC; " in scan.notes[0]
    assert "first_pixel=0" in scan.notes[0]
    assert regions(only(tmp_path, xml, first_pixel="0")) == [(CAT, (0, 20, 40, 60))]
    assert regions(only(tmp_path, xml)) == [(CAT, (-1, 19, 40, 60))]


def test_fractions(tmp_path: Path) -> None:
    xml = voc(voc_object(CAT, ("0.05", "0.2", "0.2", "0.6")))
    record = only(tmp_path, xml, boxes="fraction")
    assert regions(in_pixels(record)) == [(CAT, CORNERS)]
    with pytest.raises(SettingsError, match=r"boxes=xywh: files of format voc name the numbers .*; give a unit alone"):
        only(tmp_path, xml, boxes="xywh")


def test_an_inverted_box_is_dropped_and_not_made_one_without_an_area(tmp_path: Path) -> None:
    record = only(tmp_path, voc(voc_object(DOG, (41, 21, 40, 60)), voc_object(CAT, BOX)))
    settings = RenderSettings(seed=0, boxes="text", det_categories=80, variants=1, templates=BARE)
    ((rendering,), dropped) = render(record, Source(tag="DET", task="DET", vocabulary=(CAT, DOG)), settings)
    assert texts(rendering)[1] == "cat-[0.050,0.200,0.200,0.600]"
    assert filling(rendering) == CAT  # a dog is there
    assert dropped == {"inverted": 1}


@pytest.mark.parametrize(
    ("difficult", "answered", "left_out"), [("keep", 3, 0), ("drop", 2, 1), ("drop-truncated", 1, 2)]
)
def test_difficult_boxes_are_left_out_or_kept(tmp_path: Path, difficult: str, answered: int, left_out: int) -> None:
    items = [
        voc_object(CAT, BOX),
        voc_object(CAT, (1, 1, 20, 20), "<difficult>0</difficult><truncated>1</truncated>"),
        voc_object(DOG, (1, 1, 200, 100), "<difficult>1</difficult>"),
    ]
    record = only(tmp_path, voc(*items), difficult=difficult)
    settings = RenderSettings(seed=0, boxes="text", det_categories=80, variants=1, templates=BARE)
    ((rendering,), dropped) = render(record, Source(tag="DET", task="DET", vocabulary=(CAT, DOG, "emu")), settings)
    assert texts(rendering)[1].count("[") == answered
    assert dropped.total() == dropped["left_out"] == left_out
    asked = set(filling(rendering).split(", "))
    assert asked == ({CAT, "emu"} if left_out else {CAT, DOG, "emu"})  # never absent


def test_values_of_difficult(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("DET & a & b & difficult=no\nVISJ & a & b & first_pixel=2\n")
    with pytest.raises(SettingsError) as caught:
        read_manifest(tmp_path / "m.txt")
    first, second = str(caught.value).splitlines()
    assert f"expected one of {', '.join(DIFFICULT)}" in first
    assert "expected 0 or 1, the number of the first pixel" in second


@pytest.mark.parametrize(
    "size",
    ["", "<size><width>0</width><height>0</height></size>", "<size><width>200</width><height>0</height></size>"],
)
def test_a_size_that_is_not_stated_is_the_images_own(tmp_path: Path, size: str) -> None:
    files = {"Annotations/a.xml": voc(voc_object(CAT, BOX), size=size), "a.jpg": None}
    write_files(tmp_path, files)
    ((record,), _) = read_source(tmp_path / "Annotations", "DET")
    assert isinstance(record, Record)
    assert (record.width_px, record.height_px) == (0, 0)
    maker = SampleMaker(
        reader=_One(record),
        rounds=None,
        source=Source(tag="DET", task="DET", vocabulary=()),
        settings=RenderSettings(seed=0, boxes="text", det_categories=80, variants=1, templates=BARE),
        annotation_name="a",
        image_root=str(tmp_path),
    )
    assert maker.make(0)[0].turns[1].text == "cat-[0.050,0.200,0.200,0.600]"


class _One:
    def __init__(self, record: Record) -> None:
        self._record = record

    def read(self, _record_no: int) -> Record:
        return self._record


@pytest.mark.parametrize(
    ("filename", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "JPEGImages/a.jpg"),
        ("a", "a.JPEG"),  # ImageNet
        ("%s", "a.jpg"),  # ImageNet, too
        ("", "a.png"),
        ("old name.jpg", "a.jpg"),  # renamed with its XML file
        ("C:\\Users\\x\\b.png", "b.png"),  # the XML file has another name than its image
        ("a.jpg", "a.png"),
    ],
)
def test_where_the_image_is(tmp_path: Path, filename: str, image: str) -> None:
    more = "<path>/home/other/b.bmp</path><folder>other</folder>"
    record = only(tmp_path, voc(voc_object(CAT, BOX), filename=filename, more=more))
    root = tmp_path / "images"
    (root / image).parent.mkdir(parents=True)
    Image.new("RGB", (200, 100)).save(root / image)
    assert record.image_path is not None
    found = read_image(str(root), record.image_path, record.image_elsewhere)
    assert found.data == (root / image).read_bytes()
    assert not found.by_last_part


def test_folders_below(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"Annotations/train/n01/n01_7.xml": voc(filename="n01_7")})
    assert isinstance(record, Record)
    assert record.image_path == "train/n01/n01_7.jpg"
    assert "train/n01/n01_7.JPEG" in record.image_elsewhere


HOSTILE = {
    "entities": '<!DOCTYPE a [<!ENTITY x "cat">]><annotation><object><name>&x;</name></object></annotation>',
    "a billion laughs": '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>',
    "a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "a document type elsewhere": '<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><annotation/>',
}


@pytest.mark.parametrize(
    ("xml", "detail"),
    [
        *((xml, "has a document type or entities") for xml in HOSTILE.values()),
        ("<annotation><object>", "not XML that can be read"),
        ("", "not XML that can be read"),
        (b"<annotation>\xff</annotation>", "not XML that can be read"),
        (b'<?xml version="1.0" encoding="gb2312"?><annotation/>', "not XML that can be read"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "not XML that can be read"),
        ("<boxes/>", "expected an annotation, got 'boxes'"),
        (voc(f"<object><name>{CAT}</name></object>"), "object 'cat' has no bndbox"),
        (voc(f"<object><name>{CAT}</name><robndbox><cx>1</cx></robndbox></object>"), "has no bndbox"),
        (voc(voc_object("", BOX)), "an object has no name"),
        (voc(voc_object(CAT, (1, 2, 3, ""))), "ymax: expected a number, got ''"),
        (voc(voc_object(CAT, (1, 2, 3, "nan"))), "ymax: expected a number, got 'nan'"),
        (voc(voc_object(CAT, (1, 2, 3, "(88, 100)"))), "ymax: expected a number"),
        (voc(voc_object(CAT, (1, 2, 3, "4</ymax><ymax>5"))), "has 2 of ymax, expected one"),
        (voc(voc_object(CAT, BOX, "<name>dog</name>")), "has 2 of name, expected one"),
        (voc(voc_object("a<b/>c", BOX)), "name: expected text, got elements"),
        (voc(size="<size><width>200.5</width><height>100</height></size>"), "numbers of pixels above 0, got 200.5"),
        (voc(size="<size><width>-3</width><height>100</height></size>"), "whole numbers of pixels above 0, got -3"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_rejected_alone(tmp_path: Path, xml: object, detail: str) -> None:
    records = read(tmp_path, {"Annotations/a.xml": xml, "Annotations/b.xml": voc(voc_object(CAT, BOX))}, format="voc")
    assert regions(records[1]) == [(CAT, CORNERS)]
    reason, actual = records[0]  # type: ignore[misc]
    assert (reason, actual.startswith("a.xml: "), detail in actual) == ("bad_record", True, True), actual


def test_a_mark_that_is_no_number_rejects_only_if_it_is_asked_for(tmp_path: Path) -> None:
    xml = voc(voc_object(CAT, BOX, "<difficult>Unspecified</difficult>"))
    assert regions(only(tmp_path, xml)) == [(CAT, CORNERS)]
    (rejected,) = read(tmp_path, {"Annotations/a.xml": xml}, difficult="drop")
    reason, detail = rejected  # type: ignore[misc]
    assert (reason, "difficult: expected 0 or 1, got 'unspecified'" in detail) == ("bad_record", True)


@pytest.mark.parametrize("annotation", ["Annotations", "."])
def test_splits_of_image_sets(tmp_path: Path, annotation: str) -> None:
    files: dict[str, object] = {f"Annotations/{name}.xml": voc(filename=f"{name}.jpg") for name in "abc"}
    files |= {"ImageSets/Main/val.txt": "c\r\na\n", "ImageSets/Main/cat_train.txt": "a  1\nb -1\n"}
    folder = write_files(tmp_path, files) / annotation
    records, _ = read_source(folder, "DET", split="val")
    assert [record.image_path for record in records if isinstance(record, Record)] == ["a.jpg", "c.jpg"]
    with pytest.raises(SettingsError, match=r"split=test: there is no .*ImageSets/Main/test\.txt"):
        read_source(folder, "DET", split="test")
    with pytest.raises(DataError, match=r"cat_train\.txt, line 1: there is no XML file named 'a  1'.*one name in each"):
        read_source(folder, "DET", split="cat_train")
