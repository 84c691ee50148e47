"""Annotations as they come: compressed, damaged, and the real ones counted by other means."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from griffon_prep.readers import FORMATS
from griffon_prep.records import Record
from griffon_prep.sources.manifest import ManifestLine, read_manifest
from griffon_prep.sources.resolve import SourceInput, find_sources
from griffon_prep.sources.scan import ScannedSource, read_vocabulary, scan_source
from griffon_shards.support.errors import DataError, SettingsError

REAL = Path(__file__).parents[4] / "shared/data/real"
RECORDS: list[dict[str, Any]] = [
    {
        "id": str(i),
        "conversations": [{"from": "human", "value": f"{i}猫"}, {"from": "gpt", "value": "x" * (i + 1)}],
    }
    for i in range(300)
]
LINES = "\n".join(map(json.dumps, RECORDS)).encode()
ARRAY = json.dumps(RECORDS, indent=1).encode()


def scan(folder: Path, name: str, content: bytes, task: str = "LAZY", **options: str) -> ScannedSource:
    annotation = folder / name
    annotation.write_bytes(content)
    line = ManifestLine(line_no=1, tag=f"{task}_x", task=task, annotation=name, image_root=".", options=options)
    (source,) = find_sources([line], folder, "m.txt")
    return scanned_source(source, folder / "work")


def scanned_source(source: SourceInput, work: Path) -> ScannedSource:
    return scan_source(source, dict.fromkeys(source.files, "0" * 64), work)


def read(scanned: ScannedSource) -> list[Record]:
    reader = FORMATS[scanned.source.format].Reader(scanned.files)
    return [reader.read(number) for number in range(scanned.records)]


def with_checksum(content: bytes) -> bytes:
    """Compress as the zstd command does, with a checksum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def in_two_frames(content: bytes) -> bytes:
    half = len(content) // 2
    return zstandard.compress(content[:half]) + zstandard.compress(content[half:])


def in_two_members(content: bytes) -> bytes:
    half = len(content) // 2
    return gzip.compress(content[:half]) + gzip.compress(content[half:])


@pytest.mark.parametrize("content", [LINES, ARRAY], ids=["lines", "array"])
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".gz", in_two_members),
        (".zst", zstandard.compress),
        (".zst", in_two_frames),
    ],
)
def test_compressed_or_not_the_records_are_the_same(tmp_path: Path, content: bytes, suffix: str, pack: Any) -> None:  # noqa: ANN401
    packed = pack(content)
    scanned = scan(tmp_path, f"a.json{suffix}", packed)
    assert (scanned.source.format, scanned.records, scanned.has_images) == ("llava", 300, False)
    assert read_vocabulary(scanned.files.work) == ()
    assert [record.turns[0].text for record in read(scanned)] == [f"{number}猫" for number in range(300)]
    assert scanned_source(scanned.source, tmp_path / "work") == scanned  # what the first scan left is used


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstandard.compress)])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_compressed_file(tmp_path: Path, suffix: str, pack: Any, part: float) -> None:  # noqa: ANN401
    packed = pack(LINES)
    with pytest.raises(DataError, match=rf"a\.jsonl{suffix}: damaged or truncated.*download it again"):
        scan(tmp_path, f"a.jsonl{suffix}", packed[: max(3, int(len(packed) * part))])


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", with_checksum)])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.3, 0.5, 0.8])
def test_a_compressed_file_with_wrong_bytes(tmp_path: Path, suffix: str, pack: Any, place: float) -> None:  # noqa: ANN401
    packed = bytearray(pack(LINES))
    start = int(len(packed) * place)
    packed[start : start + 40] = b"\xa5" * 40
    with pytest.raises(DataError, match=rf"a\.jsonl{suffix}: damaged or truncated.*download it again"):
        scan(tmp_path, f"a.jsonl{suffix}", bytes(packed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ARRAY[:-1],
            r"^(m.txt:1: )?LAZY_x: [^:]*a\.json: truncated, the JSON array that begins at byte 0 never ends",
        ),
        (ARRAY + b"[]", r"^(m.txt:1: )?LAZY_x: [^:]*a\.json: there is text after the end of its JSON array"),
        (b"", r"^(m.txt:1: )?LAZY_x: [^:]*a\.json: has no records"),
        (b"[]", r"^(m.txt:1: )?LAZY_x: [^:]*a\.json: has no records"),
    ],
)
def test_a_file_that_is_damaged_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    for options in ({}, {"format": "llava"}):
        with pytest.raises(DataError, match=message):
            scan(tmp_path, "a.json", content, **options)


def test_a_file_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^m.txt:1: DET_x: [^:]*a\.json: format llava supports LAZY, not DET"):
        scan(tmp_path, "a.json", LINES, task="DET")


def test_images_are_found_after_records_that_cannot_be_read(tmp_path: Path) -> None:
    lines = b"{ broken\n" * 5 + LINES.replace(b'"id"', b'"image": "a.jpg", "id"')
    scanned = scan(tmp_path, "a.jsonl", lines)
    assert (scanned.records, scanned.has_images) == (305, True)


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    manifest = tmp_path / "m.txt"
    manifest.write_text("LAZY & a.json & .\nDET & b.json & gone\n")
    (tmp_path / "b.json").write_text("")
    with pytest.raises(SettingsError) as caught:
        find_sources(read_manifest(manifest), tmp_path, "m.txt")
    assert [line.partition(";")[0] for line in str(caught.value).splitlines()] == [
        f"m.txt:1: LAZY: no annotation file {tmp_path / 'a.json'}",
        f"m.txt:2: DET: no image folder {tmp_path / 'gone'}",
    ]


def real_sources() -> list[SourceInput]:
    if not REAL.is_dir():
        pytest.skip(f"the real data are not in {REAL}")
    return find_sources(read_manifest(REAL / "manifest_ccmd.txt"), REAL, "manifest_ccmd.txt")


def real_records(annotation: Path) -> list[dict[str, Any]]:
    """The records of a file by plain json; one for each expression of a list."""
    text = annotation.read_text(encoding="utf-8")
    elements = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    records = []
    for element in elements:
        if isinstance(element.get("expression"), list):
            pairs = zip(element["expression"], element["bboxes"], strict=True)
            records += [{**element, "expression": expression, "bboxes": [box]} for expression, box in pairs]
        else:
            records.append(element)
    return records


def real_boxes(record: dict[str, Any]) -> list[tuple[str, tuple[float, ...]]]:
    if "objects" in record:
        return [(item["category_name"], tuple(box)) for item in record["objects"] for box in item["bboxes"]]
    boxes = record.get("bboxes", [])
    boxes = [boxes] if boxes and not isinstance(boxes[0], list) else boxes
    return [(record["expression"], tuple(box)) for box in boxes]


def test_the_real_records_are_what_json_finds(tmp_path: Path) -> None:
    read_of = {}
    for source in real_sources():
        scanned = scanned_source(source, tmp_path)
        expected = real_records(source.annotation)
        assert scanned.records == len(expected)
        assert source.format == ("llava" if source.task == "LAZY" else "ccmd")
        names = {item["category_name"] for line in expected for item in line.get("objects", [])}
        assert read_vocabulary(scanned.files.work) == (tuple(sorted(names)) if source.task == "DET" else ())
        records = read(scanned)
        read_of[source.tag] = len(records)
        for index, (record, line) in enumerate(zip(records, expected, strict=True)):
            assert record.record_no == index
            assert record.image_path == line.get("image_path", line.get("image"))
            assert [(region.phrase, region.box_xyxy_px) for region in record.regions] == real_boxes(line)
            assert [turn.text for turn in record.turns] == [turn["value"] for turn in line.get("conversations", [])]
    assert set(read_of) == {"LAZY_0", "LAZY_1", "DET_0", "RANDDET_0", "REG_0", "VG_0", "VISJ_0"}
    assert min(read_of.values()) > 0
