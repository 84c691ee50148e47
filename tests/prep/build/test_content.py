"""The content of a set: the source's boxes, the images' own bytes, the same schema everywhere."""

import gzip
import shutil
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from PIL import Image

from griffon_shards import FrozenSet, Sample, open_set
from griffon_shards.grammar import parse_answer, parse_boxes_in

from ..conftest import Prep

SHARED = Path(__file__).parents[4] / "shared"
REAL = SHARED / "data/real"
Boxes = list[tuple[str, list[float]]]


def freeze(prep: Prep, manifest: Path, data: Path, out: Path, *options: object) -> FrozenSet:
    result = prep("build", "--manifest", manifest, "--data-root", data, "--out", out, *options)
    assert result.returncode == 0, result.stderr
    return open_set(out)


@pytest.fixture(scope="module")
def manifest_and_data(request: pytest.FixtureRequest, small_data: Path) -> tuple[Path, Path]:
    if request.param == "drawn":
        return small_data / "manifest.txt", small_data
    if not REAL.is_dir():
        pytest.skip(f"the real data are not in {REAL}")
    return REAL / "manifest_ccmd.txt", REAL


def source_records(data: Path, annotation: str) -> list[dict[str, Any]]:
    """The records of a ccmd file, numbered as they are, by other means than ours: a line with a list is many."""
    records = []
    for line in (data / annotation).read_text(encoding="utf-8").splitlines():
        fields = orjson.loads(line)
        if isinstance(fields.get("expression"), list):
            pairs = zip(fields["expression"], fields["bboxes"], strict=True)
            records += [{**fields, "expression": text, "bboxes": box} for text, box in pairs]
        else:
            records.append(fields)
    return records


def source_boxes(record: dict[str, Any], task: str) -> Boxes:
    if "objects" in record:
        return [(item["category_name"], box) for item in record["objects"] for box in item["bboxes"]]
    boxes = record["bboxes"]
    flat = [boxes] if boxes and not isinstance(boxes[0], list) else boxes
    return [(record["expression"], box) for box in flat]


def clamped(boxes: Boxes, width: int, height: int) -> list[tuple[str, tuple[float, ...]]]:
    sides = (width, height, width, height)
    return sorted(
        (label, tuple(min(max(v / s, 0.0), 1.0) for v, s in zip(box, sides, strict=True))) for label, box in boxes
    )


def in_image(boxes: Boxes, width: int, height: int) -> list[tuple[float, ...]]:
    sides = (width, height, width, height)
    return [tuple(min(max(v, 0.0), s) for v, s in zip(box, sides, strict=True)) for _, box in boxes]


def assert_same_boxes(result: list[Any], expected: list[tuple[str, tuple[float, ...]]], key: str) -> None:
    """Equal to half a thousandth of the side, each box matched with one of the source's."""
    assert len(result) == len(expected), key
    left = list(expected)
    for label, box in result:
        near = [
            e
            for e in left
            if e[0] == label and all(abs(a - b) <= 0.0005 + 1e-9 for a, b in zip(box, e[1], strict=True))
        ]
        assert near, f"{key}: {label} {box} is no box of the source"
        left.remove(near[0])


@pytest.mark.parametrize("manifest_and_data", ["drawn", "real"], indirect=True)
@pytest.mark.parametrize("style", ["text", "bin"])
def test_answers_are_the_boxes_of_the_source(
    manifest_and_data: tuple[Path, Path], style: str, tmp_path: Path, prep: Prep
) -> None:
    manifest, data = manifest_and_data
    shards = freeze(prep, manifest, data, tmp_path / "set", "--boxes", style)
    records = {s.annotation: source_records(data, s.annotation) for s in shards.lock.sources if s.task != "LAZY"}
    compared = set()
    for sample in (shards[row] for row in range(len(shards))):
        if sample.task == "LAZY":
            continue
        record = records[sample.origin.annotation][sample.origin.record]
        assert (sample.width_px, sample.height_px) == (record["width"], record["height"])
        question, answer = (turn.text for turn in sample.turns)
        expected = clamped(source_boxes(record, sample.task), sample.width_px, sample.height_px)
        if sample.task == "REG":
            parsed = [(record["expression"], box) for box in parse_boxes_in(question, style)]
            assert answer == record["expression"]
        else:
            parsed = parse_answer(answer, sample.task, style)
            assert [box[:2] for _, box in parsed] == sorted(box[:2] for _, box in parsed)
        if sample.task == "VISJ":
            assert sample.region_xyxy_px is not None
            sides = (sample.width_px, sample.height_px) * 2
            region = tuple(v / s for v, s in zip(sample.region_xyxy_px, sides, strict=True))
            category = {
                label for label, box in expected if max(abs(a - b) for a, b in zip(box, region, strict=True)) < 1e-9
            }
            assert category, f"{sample.key}: the region is no box of the source"
            expected = [("", box) for label, box in expected if label in category and len(category) == 1] or [
                ("", box) for label, box in expected if label in category
            ]
        assert_same_boxes(parsed, expected, sample.key)
        assert sample.boxes_xyxy_px is not None
        exact = in_image(source_boxes(record, sample.task), sample.width_px, sample.height_px)
        assert len(sample.boxes_xyxy_px) == (0 if sample.task == "REG" else len(parsed))
        assert set(sample.boxes_xyxy_px) <= set(exact), f"{sample.key}: a box in pixels is not the annotation's"
        assert question.count("<image>") == 1
        compared.add(sample.task)
    assert compared == {"DET", "RANDDET", "REG", "VG", "VISJ"}


def test_members_and_schema(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    """Read by tarfile and json alone: names, order, the images' own bytes, the same keys and types in every sample."""
    shards = freeze(prep, small_data / "manifest.txt", small_data, tmp_path / "set", "--samples-per-shard", 7)
    pictures = {path.read_bytes() for path in (small_data / "pictures").rglob("*") if path.is_file()}
    shapes: set[str] = set()
    boxes: set[str] = set()
    keys: list[str] = []
    for shard in shards.lock.shards:
        with tarfile.open(tmp_path / "set" / shard.name) as tar:
            members = tar.getmembers()
            content = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
        assert {(m.uid, m.gid, m.mtime, m.mode, m.uname, m.gname) for m in members} == {(0, 0, 0, 0o644, "", "")}
        for name, data in content.items():
            key, _, extension = name.rpartition(".")
            if extension == "json":
                keys.append(key)
                fields = orjson.loads(data)
                boxes.add(repr(shape(fields.pop("boxes"))))
                shapes.add(repr(shape(fields)))
                assert key == f"{shard.name.partition('/')[0]}-{fields['origin']['record']:09d}"
                if fields["width"]:
                    with Image.open(BytesIO(content[f"{key}.jpg"])) as image:
                        assert (image.size, image.format) == (
                            (fields["width"], fields["height"]),
                            fields["image_format"],
                        )
            else:
                assert extension == "jpg" and data in pictures
        names = list(content)
        assert all(names[i + 1] == name[:-3] + "json" for i, name in enumerate(names) if name.endswith("jpg"))
    assert len(shapes) == 1
    assert boxes == {"[]", "[['float']]"}
    assert keys == [shards.key(row) for row in range(len(shards))]
    assert {shards[row].image_format for row in range(len(shards))} == {"JPEG", "PNG", "WEBP", ""}


def shape(value: object) -> object:
    """Keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def renderings(shards: FrozenSet) -> list[tuple[str, Any]]:
    return [(sample.key, sample.renderings) for sample in (shards[row] for row in range(len(shards)))]


def test_limit_is_the_beginning_of_the_shuffled_order(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    (tmp_path / "all.txt").write_text("VG & ccmd/vg.jsonl & pictures\n")
    (tmp_path / "few.txt").write_text("VG & ccmd/vg.jsonl & pictures & limit=5\n")
    every = renderings(freeze(prep, tmp_path / "all.txt", small_data, tmp_path / "all"))
    few = freeze(prep, tmp_path / "few.txt", small_data, tmp_path / "few")
    assert renderings(few) == every[:5]
    assert few.lock.sources[0].records == len(every)
    assert [key for key, _ in every] != sorted(key for key, _ in every)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_annotations(small_data: Path, tmp_path: Path, prep: Prep, suffix: str) -> None:
    plain = (small_data / "ccmd/det.jsonl").read_bytes()
    packed = gzip.compress(plain) if suffix == ".gz" else zstandard.compress(plain)
    data = tmp_path / "data"
    shutil.copytree(small_data / "pictures", data / "pictures")
    (data / f"det.jsonl{suffix}").write_bytes(packed)
    (data / "det.jsonl").write_bytes(plain)
    (tmp_path / "packed.txt").write_text(f"DET & det.jsonl{suffix} & pictures\n")
    (tmp_path / "plain.txt").write_text("DET & det.jsonl & pictures\n")
    ours = freeze(prep, tmp_path / "packed.txt", data, tmp_path / "packed")
    assert renderings(ours) == renderings(freeze(prep, tmp_path / "plain.txt", data, tmp_path / "plain"))
    assert ours.lock.sources[0].annotation_bytes == len(packed)
    (data / f"det.jsonl{suffix}").write_bytes(packed[:-9])
    result = prep("check", "--manifest", tmp_path / "packed.txt", "--data-root", data)
    assert result.returncode == 1 and "damaged or truncated" in result.stderr and "Traceback" not in result.stderr


def test_variants(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    manifest = small_data / "manifest.txt"
    one = freeze(prep, manifest, small_data, tmp_path / "one")
    three = freeze(prep, manifest, small_data, tmp_path / "three", "--variants", 3)
    assert [key for key, _ in renderings(three)] == [key for key, _ in renderings(one)]
    samples = [three[row] for row in range(len(three))]
    assert all(sample.renderings[0] == one[row].renderings[0] for row, sample in enumerate(samples))
    drawn = [sample for sample in samples if sample.task != "LAZY"]
    assert {len(sample.renderings) for sample in samples} == {3}
    assert sum(len(set(sample.renderings)) > 1 for sample in drawn) > 0.9 * len(drawn)


def test_resize(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    manifest = small_data / "manifest.txt"
    as_is = freeze(prep, manifest, small_data, tmp_path / "as_is")
    small = freeze(prep, manifest, small_data, tmp_path / "small", "--resize", 450)
    kept = changed = 0
    for row in range(len(small)):
        before, after = as_is[row], small[row]
        assert before.turns == after.turns
        if before.image is None or after.image is None:
            continue
        if max(before.width_px, before.height_px) <= 450:
            assert before == after
            kept += 1
            continue
        changed += 1
        with Image.open(BytesIO(after.image)) as image:
            assert image.size == (after.width_px, after.height_px) and image.format == after.image_format == "JPEG"
        assert max(after.width_px, after.height_px) == 450
        assert after.width_px / after.height_px == pytest.approx(before.width_px / before.height_px, rel=0.01)
        if before.region_xyxy_px is not None:
            assert relative_region(after) == pytest.approx(relative_region(before))
    assert kept and changed


def relative_region(sample: Sample) -> list[float]:
    assert sample.region_xyxy_px is not None
    sides = (sample.width_px, sample.height_px) * 2
    return [v / s for v, s in zip(sample.region_xyxy_px, sides, strict=True)]


def test_default_shard_sizes(tmp_path: Path, prep: Prep) -> None:
    """10,000 samples without images, 1,000 with."""
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    turns = '"conversations": [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "1"}]'
    (tmp_path / "text.jsonl").write_text(f"{{{turns}}}\n" * 10_001)
    (tmp_path / "seen.jsonl").write_text(f'{{"image": "p.png", {turns}}}\n' * 1_001)
    (tmp_path / "m.txt").write_text("LAZY_text & text.jsonl & .\nLAZY_seen & seen.jsonl & .\n")
    shards = freeze(prep, tmp_path / "m.txt", tmp_path, tmp_path / "set")
    assert sorted(shard.samples for shard in shards.lock.shards) == [1, 1, 1000, 10_000]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the reference's templates are not in {SHARED}")
def test_the_references_templates(small_data: Path, tmp_path: Path, prep: Prep) -> None:
    folder = SHARED / "data/reference/templates"
    shards = freeze(prep, small_data / "manifest.txt", small_data, tmp_path / "set", "--templates", folder)
    questions = {sample.task: sample.turns[0].text for sample in (shards[row] for row in range(len(shards)))}
    assert questions["DET"].endswith(orjson.loads((folder / "answer_format.json").read_bytes())["DET"])
    wordings = [text.partition("<objs>") for text in orjson.loads((folder / "REG.json").read_bytes())]
    assert any(
        questions["REG"].startswith(before) and questions["REG"].endswith(after) for before, _, after in wordings
    )
