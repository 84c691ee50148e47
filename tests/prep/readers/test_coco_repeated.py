"""COCO files that list an image in several entries, as merged data sets do: each entry knows its own boxes only."""

from pathlib import Path
from typing import Any

import pytest

from .published import box, coco, picture, write
from .reading import read_source

NOTE = "entries of images that name the image of an earlier entry: 1, such as 'a.jpg'"


def notes(folder: Path, task: str, *entries: dict[str, Any]) -> str:
    boxes = [box(index, entry["id"]) for index, entry in enumerate(entries)]
    _, scan = read_source(write(folder, {"a.json": coco(list(entries), boxes)}), task)
    return "\n".join(scan.notes)


@pytest.mark.parametrize("task", ["DET", "RANDDET", "VISJ"])
def test_an_image_in_two_entries_is_noted(tmp_path: Path, task: str) -> None:
    entries = [picture(1, file_name="a.jpg"), picture(2, file_name="b.jpg"), picture(3, file_name="a.jpg")]
    assert NOTE in notes(tmp_path, task, *entries)


def test_an_image_in_one_entry_is_not_noted(tmp_path: Path) -> None:
    entries = [picture(1, file_name="a.jpg"), picture(2, file_name="b.jpg"), picture(3, file_name="c/a.jpg")]
    assert "earlier entry" not in notes(tmp_path, "DET", *entries)
