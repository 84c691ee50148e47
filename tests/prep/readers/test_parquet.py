"""Parquet files of conversations with their images, as Hugging Face's data sets are published."""

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from griffon_prep.records import Record
from griffon_prep.sources.manifest import ManifestLine
from griffon_prep.sources.part import split_key
from griffon_prep.sources.resolve import find_sources
from griffon_shards.support.errors import DataError, SettingsError

from .mutations import spoilt_bytes
from .reading import read_source

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

TURNS = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A cat."}]
MESSAGES = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}]


def row(number: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any cell
    turns = [{"from": "human", "value": f"<image>{number}?"}, {"from": "gpt", "value": f"It is {number}."}]
    image = {"bytes": b"image %d" % number, "path": f"{number}.jpg"}
    return {"id": str(number), "image": image, "conversations": turns, "score": 0.5, **more}


def write(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:  # noqa: ANN401 - pyarrow's
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, write_page_checksum=True, **options)
    return path


def said(records: Sequence[Record | tuple[str, str]]) -> list[tuple[str | None, bytes | None, str] | str]:
    return [
        (record.image_path, record.image_bytes, record.turns[-1].text) if isinstance(record, Record) else record[0]
        for record in records
    ]


@pytest.mark.parametrize("options", [{}, {"row_group_size": 7}, {"compression": "zstd"}, {"data_page_size": 64}])
def test_each_row_is_a_record_with_its_image(tmp_path: Path, options: dict[str, Any]) -> None:
    records, scan = read_source(write(tmp_path / "a", [row(number) for number in range(40)], **options), "LAZY")
    assert said(records) == [(f"{number}.jpg", b"image %d" % number, f"It is {number}.") for number in range(40)]
    assert scan.records == 40


def test_the_files_of_a_folder_follow_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in (1, 0, 2):
        write(folder / f"train-0000{number}-of-00003.parquet", [row(2 * number), row(2 * number + 1)])
    (folder / "README.md").write_text("About the data.")
    records, _ = read_source(folder, "LAZY")
    assert [record[2] for record in said(records)] == [f"It is {number}." for number in range(6)]
    line = ManifestLine(line_no=1, tag="LAZY", task="LAZY", annotation="data", image_root=".", options={})
    (source,) = find_sources([line], tmp_path, "m.txt")
    assert source.format == "parquet"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"bytes": b"abc", "path": "x/7.jpg"}, ("x/7.jpg", b"abc")),
        ({"bytes": b"abc", "path": None}, ("row 0 of a.parquet", b"abc")),
        ({"bytes": None, "path": "x/7.jpg"}, ("x/7.jpg", None)),  # found under the image root
        (b"abc", ("row 0 of a.parquet", b"abc")),
        ("x/7.jpg", ("x/7.jpg", None)),
    ],
)
@pytest.mark.parametrize("column", ["image", "images", "img"])
@pytest.mark.parametrize(
    "turns", [{"conversations": TURNS}, {"messages": MESSAGES}, {"conversations": json.dumps(TURNS)}]
)
def test_images_and_conversations_come_in_several_forms(
    tmp_path: Path, image: object, expected: tuple[str, bytes | None], column: str, turns: dict[str, Any]
) -> None:
    cell = [image] if column == "images" else image
    (record,), _ = read_source(write(tmp_path / "a.parquet", [{**turns, column: cell}]), "LAZY")
    assert isinstance(record, Record)
    assert (record.image_path, record.image_bytes) == expected
    assert [turn.text for turn in record.turns] == ["<image>What?", "A cat."]


def test_rows_that_cannot_be_used_are_rejected_alone(tmp_path: Path) -> None:
    image = {"bytes": b"abc", "path": None}
    rows: list[dict[str, Any]] = [
        {"images": [image], "conversations": TURNS},
        {"images": [image, image], "conversations": TURNS},
        {"images": [], "conversations": TURNS},
        {"images": [{"bytes": b"", "path": "e.jpg"}], "conversations": TURNS},
        {"images": [image], "conversations": TURNS[:1]},
        {"images": [image], "conversations": None},
        {"images": None, "conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]},
    ]
    records, _ = read_source(write(tmp_path / "a.parquet", rows), "LAZY")
    assert said(records) == [
        ("row 0 of a.parquet", b"abc", "A cat."),
        "several_pictures",
        "image_token_without_picture",
        "picture_unreadable",
        "no_turns",
        "bad_record",
        (None, None, "2"),
    ]


def test_objects_of_ms_swift_are_read_too(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "<image>Find the <ref-object>."}, {"role": "assistant", "content": "<bbox>"}]
    boxes = {"ref": ["cat"], "bbox": [[1.0, 2.0, 3.0, 4.0]], "bbox_type": None}
    (record,), _ = read_source(
        write(tmp_path / "a.parquet", [{"messages": turns, "objects": boxes, "image": {"bytes": b"a", "path": "a"}}]),
        "VG",
    )
    assert isinstance(record, Record)
    assert [(region.phrase, region.box_xyxy_px) for region in record.regions] == [("cat", (1.0, 2.0, 3.0, 4.0))]
    assert record.image_bytes == b"a"


def test_other_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"image": b"a", "caption": "a cat"}])
    with pytest.raises(SettingsError, match="has no column conversations or messages; its columns are image, caption"):
        read_source(path, "LAZY")


def test_without_pyarrow_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [row(0)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        SettingsError, match=r"needs pyarrow; install it with `pip install 'griffon-pipeline\[parquet\]'`"
    ):
        read_source(path, "LAZY")


CASES = 300


def test_no_spoilt_file_gives_a_wrong_answer(tmp_path: Path) -> None:
    """Pages have checksums here; a file is refused as a whole, or gives what it holds."""
    data = write(tmp_path / "a", [row(number) for number in range(6)], compression="zstd").read_bytes()
    right = said(read_source(tmp_path / "a", "LAZY")[0])
    refused = 0
    for case in range(CASES):
        random = Random(f"parquet {case}")
        (tmp_path / "b").write_bytes(spoilt_bytes(random, data))
        try:
            records, _ = read_source(tmp_path / "b", "LAZY", format="parquet")
        except (DataError, SettingsError) as error:
            assert str(tmp_path / "b") in str(error)
            refused += 1
        else:
            assert len(records) == 6
            assert all(answer in right for answer in said(records) if not isinstance(answer, str)), case
    assert refused > CASES // 2


def test_images_in_a_column_that_is_not_read_do_not_become_text_alone(tmp_path: Path) -> None:
    for cell in (b"image", {"bytes": b"image", "path": "a.jpg"}, [b"image"]):
        path = write(tmp_path / "a.parquet", [{"jpg": cell, "conversations": TURNS}])
        with pytest.raises(SettingsError, match=r"the column jpg has bytes and is not read; .* rename it to image"):
            read_source(path, "LAZY")
    write(path, [{**row(0), "embedding": b"numbers"}])
    assert said(read_source(path, "LAZY")[0]) == [("0.jpg", b"image 0", "It is 0.")]


def test_an_image_without_a_name_is_on_one_side_of_the_split_wherever_it_is(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"image", "path": None}, "conversations": TURNS} for _ in range(2)]
    records, _ = read_source(write(tmp_path / "a.parquet", [*rows, row(0)]), "LAZY")
    first, second, named = (split_key(record, None) for record in records if isinstance(record, Record))
    assert first == second == f"sha256:{hashlib.sha256(b'image').hexdigest()}"
    assert named == "name:0"
