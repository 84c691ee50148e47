"""Boxes in another unit or order are reported before anything is written, with the option that reads them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from griffon_prep.cli import main
from griffon_prep.records import Record, in_pixels
from griffon_prep.sources.manifest import ManifestLine, read_manifest
from griffon_prep.sources.resolve import find_sources
from griffon_shards.frozen_set import open_set
from griffon_shards.support.errors import SettingsError

from ..readers.published import box, coco, picture
from .test_scan import read, scanned_source

WIDTH, HEIGHT = 200, 100
Box = tuple[float, float, float, float]


def corners(random: Random) -> Box:
    """A box of whole pixels, anywhere in an image."""
    (x1, x2), (y1, y2) = (sorted(random.sample(range(side + 1), 2)) for side in (WIDTH, HEIGHT))
    return x1, y1, x2, y2


BOXES = [corners(Random(number)) for number in range(40)]


def as_xywh(box: Box) -> Box:
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def as_fractions(box: Box) -> Box:
    return box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT


def as_thousandths(box: Box) -> Box:
    x1, y1, x2, y2 = as_fractions(box)
    return 1000 * x1, 1000 * y1, 1000 * x2, 1000 * y2


def in_coco(boxes: list[Box]) -> Any:  # noqa: ANN401 - JSON
    return coco([picture(7), picture(8)], [box(i, 7 + i % 2, bbox=list(values)) for i, values in enumerate(boxes)])


def in_ccmd(boxes: list[Box]) -> Any:  # noqa: ANN401 - JSON
    line = {"image_path": "7.jpg", "height": HEIGHT, "width": WIDTH}
    return [{**line, "objects": [{"category_name": "cat", "bboxes": [values]}]} for values in boxes]


def in_genome(boxes: list[Box]) -> Any:  # noqa: ANN401 - JSON
    objects = [dict(zip("xywh", values, strict=True)) | {"names": ["cat"]} for values in boxes]
    return [{"image_id": 7, "objects": objects}]


def in_swift(boxes: list[Box]) -> Any:  # noqa: ANN401 - JSON
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "<ref-object><bbox>"}]
    return [
        {"messages": turns, "images": ["7.jpg"], "objects": {"ref": ["cat"], "bbox": [list(values)]}}
        for values in boxes
    ]


def scan(folder: Path, content: Any, options: str = "") -> list[Record]:  # noqa: ANN401 - JSON
    """The records of a file whose manifest line has these options."""
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "7.jpg")
    (folder / "image_data.json").write_text(
        json.dumps([{"image_id": 7, "url": "7.jpg", "width": WIDTH, "height": HEIGHT}])
    )
    (folder / "a.json").write_text(json.dumps(content))
    given = dict(item.split("=") for item in options.split(",") if item)
    line = ManifestLine(line_no=1, tag="DET", task="DET", annotation="a.json", image_root=".", options=given)
    (source,) = find_sources([line], folder, "m.txt")
    return read(scanned_source(source, folder / f"work {options}"))


def pixels(records: list[Record]) -> list[Box]:
    return [
        region.box_xyxy_px
        for record in records
        for region in in_pixels(
            Record(
                record_no=0,
                image_path=None,
                width_px=WIDTH,
                height_px=HEIGHT,
                units_per_side=record.units_per_side,
                regions=record.regions,
            )
        ).regions
    ]


def test_boxes_as_they_should_be_pass(tmp_path: Path) -> None:
    for write, form in ((in_coco, as_xywh), (in_genome, as_xywh), (in_ccmd, tuple), (in_swift, tuple)):
        assert sorted(pixels(scan(tmp_path, write(list(map(form, BOXES)))))) == sorted(BOXES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("write", "form", "message", "remedy"),
    [
        (in_coco, lambda item: as_fractions(as_xywh(item)), "all lie within [0, 1]", "boxes=fraction"),
        (in_genome, lambda item: as_fractions(as_xywh(item)), "all lie within [0, 1]", "boxes=fraction"),
        (in_ccmd, as_fractions, "all lie within [0, 1]", "boxes=fraction"),
        (in_swift, as_fractions, "all lie within [0, 1]", "boxes=fraction"),
        (in_coco, tuple, "extend beyond their images", "boxes=xyxy"),
        (in_genome, tuple, "extend beyond their images", "boxes=xyxy"),
        (in_ccmd, as_xywh, "end before they begin", "boxes=xywh"),
        (in_swift, as_xywh, "end before they begin", "boxes=xywh"),
        (in_coco, as_fractions, "all lie within [0, 1]", "boxes=fraction+xyxy"),
    ],
)
def test_the_option_is_named_and_reads_them(
    tmp_path: Path, write: Callable[[list[Box]], Any], form: Callable[[Box], Box], message: str, remedy: str
) -> None:
    content = write(list(map(form, BOXES)))
    with pytest.raises(SettingsError) as refused:
        scan(tmp_path, content)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"DET: {tmp_path / 'a.json'}: of 40 boxes looked at, ")
    assert message in line
    assert f"add {remedy.partition('+')[0]} to the manifest line" in line
    assert rounded(pixels(scan(tmp_path, content, remedy))) == rounded(BOXES)


def rounded(boxes: Sequence[Box]) -> list[tuple[float, ...]]:
    return sorted(tuple(round(edge, 6) for edge in item) for item in boxes)


def test_fractions_in_another_order_are_reported_one_after_the_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"add boxes=fraction\+xyxy to the manifest line"):
        scan(tmp_path, in_coco(list(map(as_fractions, BOXES))), "boxes=fraction")
    with pytest.raises(SettingsError, match=r"add boxes=fraction\+xywh to the manifest line"):
        scan(tmp_path, in_ccmd([as_fractions(as_xywh(item)) for item in BOXES]), "boxes=fraction")


def test_other_units_are_reported_without_a_guess(tmp_path: Path) -> None:
    """Thousandths of small images, or boxes of larger versions of the images."""
    with pytest.raises(SettingsError, match=r"extend beyond their images.*correct their unit or the image root"):
        scan(tmp_path, in_ccmd(list(map(as_thousandths, BOXES))))
    records = scan(tmp_path, in_ccmd(list(map(as_thousandths, BOXES))), "boxes=thousandth")
    assert rounded(pixels(records)) == rounded(BOXES)


def test_a_stated_unit_is_checked_too(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Where?"}]
    in_text = [
        {
            "image": "7.jpg",
            "conversations": [*turns, {"from": "gpt", "value": json.dumps({"bbox_2d": given, "label": "a"})}],
        }
        for given in map(as_thousandths, BOXES)
    ]
    with pytest.raises(SettingsError, match="extend beyond their images"):
        scan(tmp_path, in_text, "boxes=pixel")
    assert rounded(pixels(scan(tmp_path, in_text, "boxes=thousandth"))) == rounded(BOXES)
    with pytest.raises(SettingsError, match="extend beyond their images"):
        scan(tmp_path, in_ccmd(BOXES), "boxes=fraction")


@pytest.mark.parametrize(
    ("write", "boxes", "options"),
    [
        (in_ccmd, [(x1, y1, x2 + 150, y2 + 90) for x1, y1, x2, y2 in BOXES], "boxes=xyxy"),  # if they are really so
        (in_ccmd, [(x1, y1, x2 + 150, y2 + 90) for x1, y1, x2, y2 in BOXES[:9]], ""),  # too few to judge
        (in_ccmd, [(0, 0, 1, 1), (0, 0, 100, 50)], ""),
        (in_ccmd, [], ""),
    ],
)
def test_what_may_be_right_passes(
    tmp_path: Path, write: Callable[[list[Box]], Any], boxes: list[Box], options: str
) -> None:
    line = {"image_path": "7.jpg", "height": HEIGHT, "width": WIDTH, "objects": []}
    assert len(scan(tmp_path, [*write(boxes), line], options)) == len(boxes) + 1


@pytest.mark.parametrize(
    "value", ["pixels", "pixel+fraction", "xyxy+xywh", "fraction+thousandth", "fraction+fraction", "+", "xyxy+"]
)
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "m.txt").write_text(f"DET & a.json & . & boxes={value}\nDET_b & a.json & . & orientation=up\n")
    with pytest.raises(SettingsError) as refused:
        read_manifest(tmp_path / "m.txt")
    boxes, orientation = str(refused.value).splitlines()
    assert (
        "expected one of pixel, fraction, thousandth, xyxy, xywh, or a unit and an order, such as fraction+xyxy"
        in boxes
    )
    assert "expected shown" in orientation


def build(folder: Path, line: str, out: str) -> Any:  # noqa: ANN401 - click's result
    (folder / "m.txt").write_text(line + "\n")
    arguments = ["build", "--manifest", folder / "m.txt", "--data-root", folder, "--out", folder / out, "--workers", 1]
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_nothing_is_written_before(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "7.jpg")
    lines = in_ccmd(list(map(as_fractions, BOXES)))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    refused = build(tmp_path, "DET & a.jsonl & .", "set")
    assert refused.exit_code == 2
    assert "add boxes=fraction to the manifest line" in refused.output
    assert not list((tmp_path / "set").glob("DET*"))
    built = build(tmp_path, "DET & a.jsonl & . & boxes=fraction", "set")
    assert built.exit_code == 0, built.output
    frozen = open_set(tmp_path / "set")
    boxes = [frozen[row].boxes_xyxy_px for row in range(len(frozen.index))]
    assert rounded([item for of_sample in boxes for item in of_sample or ()]) == rounded(BOXES)
