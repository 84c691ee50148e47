"""`orientation=shown`: sources that were annotated on images as viewers show them, turned by their EXIF orientation."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageDraw, ImageOps

from griffon_prep.cli import main
from griffon_shards.frozen_set import open_set
from griffon_shards.images import decode, orientation
from griffon_shards.types import Sample

SIDES = (160, 96)
BOX = (16, 8, 56, 40)  # of the red rectangle, in the image as it is shown
BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another."""


def shown() -> Image.Image:
    image = Image.new("RGB", SIDES, "white")
    ImageDraw.Draw(image).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill="red")
    return image


def stored(path: Path, number: int) -> None:
    """Write an image that viewers show as `shown()`, stored as a camera with this orientation stores it."""
    exif = Image.Exif()
    pixels = shown()
    if number in BACK:
        exif[0x0112] = BACK[number]
        buffer = BytesIO()
        pixels.save(buffer, "PNG", exif=exif)
        pixels = ImageOps.exif_transpose(Image.open(buffer))
    exif = Image.Exif()
    exif[0x0112] = number
    pixels.save(path, quality=95, exif=exif)


def build(folder: Path, number: int, options: str = "", *, ending: str = "jpg", **record: Any) -> Sample | str:  # noqa: ANN401
    stored(folder / f"a.{ending}", number)
    line = {"image_path": f"a.{ending}", "width": SIDES[0], "height": SIDES[1], "expression": "red", "bboxes": [BOX]}
    (folder / "a.jsonl").write_text(json.dumps({**line, **record}))
    (folder / "m.txt").write_text(f"VG & a.jsonl & .{options and f' & {options}'}\n")
    out = folder / f"set {number} {options} {ending}"
    arguments = ["build", "--manifest", folder / "m.txt", "--data-root", folder, "--out", out, "--workers", 1]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    if result.exit_code:
        return result.output
    return open_set(out)[0]


def red_of(sample: Sample) -> tuple[int, ...]:
    """The bounds of what is red."""
    assert sample.image is not None
    pixels = np.asarray(decode(sample.image)).astype(int)
    rows, columns = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 100))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_the_image_is_stored_as_it_is_shown(tmp_path: Path, number: int, ending: str) -> None:
    sample = build(tmp_path, number, "orientation=shown", ending=ending)
    assert isinstance(sample, Sample), sample
    assert (sample.width_px, sample.height_px) == SIDES
    assert red_of(sample) == pytest.approx(BOX, abs=1)
    assert sample.boxes_xyxy_px == (BOX,)
    assert sample.turns[1].text == "red-[0.100,0.083,0.350,0.417]"
    assert sample.image is not None
    assert sample.image_format == ("JPEG" if number > 1 or ending == "jpg" else {"png": "PNG", "tif": "TIFF"}[ending])
    assert orientation(sample.image) == 1
    if number == 1:
        assert sample.image == (tmp_path / f"a.{ending}").read_bytes()


def test_the_bytes_are_always_the_same_and_the_lock_names_the_option(tmp_path: Path) -> None:
    first, second = build(tmp_path, 6, "orientation=shown"), build(tmp_path, 6, "orientation=shown, weight=1")
    assert isinstance(first, Sample) and isinstance(second, Sample)
    assert first.image == second.image
    lock = json.loads((tmp_path / "set 6 orientation=shown jpg" / "griffon.lock.json").read_bytes())
    assert lock["sources"][0]["options"] == {"orientation": "shown"}


def test_without_it_swapped_sides_name_it(tmp_path: Path) -> None:
    said = build(tmp_path, 6)
    assert isinstance(said, str)
    assert "size_mismatch: a.jpg: the image is 96x160, the record says 160x96: it was annotated as its EXIF" in said
    assert "add orientation=shown to the manifest line" in said


def test_with_it_an_image_that_was_annotated_as_stored_is_rejected(tmp_path: Path) -> None:
    said = build(tmp_path, 6, "orientation=shown", width=SIDES[1], height=SIDES[0])
    assert isinstance(said, str)
    assert "the image is 160x96, the record says 96x160: it was annotated as it is stored" in said
    assert "remove orientation=shown" in said


@pytest.mark.parametrize("number", [2, 3, 4, 6])
def test_labelmes_boxes_are_of_the_image_as_shown(tmp_path: Path, number: int) -> None:
    """labelme turns images. Upside down they keep their size, so only the orientation tells."""
    (tmp_path / "json").mkdir()
    stored(tmp_path / "a.jpg", number)
    shape = {"label": "red", "shape_type": "rectangle", "points": [BOX[:2], BOX[2:]]}
    fields = {"imagePath": "a.jpg", "imageWidth": SIDES[0], "imageHeight": SIDES[1], "shapes": [shape]}
    (tmp_path / "json/a.json").write_text(json.dumps(fields))
    results = {}
    for name, options in (("as it is", ""), ("shown", " & orientation=shown")):
        (tmp_path / "m.txt").write_text(f"DET & json & .{options}\n")
        arguments = ["build", "--manifest", tmp_path / "m.txt", "--data-root", tmp_path, "--out", tmp_path / name]
        results[name] = CliRunner().invoke(main, [*map(str, arguments), "--workers", "1", "--no-report"])
    assert results["as it is"].exit_code == 1
    assert "size_mismatch" in results["as it is"].output and "add orientation=shown" in results["as it is"].output
    assert results["shown"].exit_code == 0
    sample = open_set(tmp_path / "shown")[0]
    assert sample.turns[1].text == "red-[0.100,0.083,0.350,0.417]"
    assert max(abs(a - b) for a, b in zip(red_of(sample), BOX, strict=True)) <= 2
