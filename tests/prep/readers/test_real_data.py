"""Published files as they are: all counts and boxes of a build compared with the raw files, read by other means."""

import json
import pickle
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.types import Sample

from ..conftest import run_prep

REAL = Path(__file__).parents[4] / "shared/data/real"
BOX = re.compile(r"\[(\d\.\d{3}),(\d\.\d{3}),(\d\.\d{3}),(\d\.\d{3})\]")

Found = list[tuple[str, list[float]]]
"""Names and boxes (fractions of three decimals)."""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    """The set that is built of `manifest_native.txt`."""
    if not REAL.is_dir():
        pytest.skip(f"the real data are not in {REAL}")
    out = tmp_path_factory.mktemp("native") / "set"
    built = run_prep("build", "--manifest", REAL / "manifest_native.txt", "--data-root", REAL, "--out", out)
    assert built.returncode == 0, built.stderr
    return open_set(out)


def raw(file: str) -> Any:  # noqa: ANN401 - JSON
    text = (REAL / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if file.endswith(".jsonl") else json.loads(text)


def refs(split: str) -> list[dict[str, Any]]:
    result = pickle.loads((REAL / "refcoco/refs(unc).p").read_bytes())
    return [item for item in result if item["split"] == split]


def fractions(xywh: Iterable[float], width_px: int, height_px: int) -> list[float]:
    """Return a box as answers have it: fractions with three decimals, clamped to the image."""
    x, y, width, height = xywh
    corners = (x / width_px, y / height_px, (x + width) / width_px, (y + height) / height_px)
    return [round(min(max(corner, 0.0), 1.0), 3) for corner in corners]


def of_coco(file: str) -> dict[int, Found]:
    """Return an image's content without crowds, in the file's order, by record: its place in `images`."""
    coco = raw(file)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    result: dict[int, Found] = {}
    for position, image in enumerate(coco["images"]):
        boxes = [
            annotation
            for annotation in coco["annotations"]
            if annotation["image_id"] == image["id"] and not annotation.get("iscrowd")
        ]
        result[position] = [
            (names[annotation["category_id"]], fractions(annotation["bbox"], image["width"], image["height"]))
            for annotation in boxes
        ]
    return result


def of_genome(file: str, key: str, sides: tuple[str, str]) -> list[Found]:
    """Return, for each element, the names of objects or phrases of regions, and their boxes."""
    sizes = {image["image_id"]: (image["width"], image["height"]) for image in raw("visual_genome/image_data.json")}
    result = []
    for element in raw(f"visual_genome/{file}"):
        size = sizes[element.get("image_id", element.get("id"))]
        boxes = [fractions((item["x"], item["y"], item[sides[0]], item[sides[1]]), *size) for item in element[key]]
        names = [
            item["names"][0].strip().lower() if "names" in item else item["phrase"].strip() for item in element[key]
        ]
        result.append(list(zip(names, boxes, strict=True)))
    return result


def of_refs(result: list[dict[str, Any]], file: str) -> list[Found]:
    """Return the boxes of each sentence, looked up in `instances.json`."""
    instances = raw(file)
    sizes = {image["id"]: (image["width"], image["height"]) for image in instances["images"]}
    boxes = {item["id"]: fractions(item["bbox"], *sizes[item["image_id"]]) for item in instances["annotations"]}
    expected = []
    for item in result:
        numbers = item["ann_id"] if isinstance(item["ann_id"], list) else [item["ann_id"]]
        expected += [
            [(sentence["sent"].strip(), boxes[number]) for number in numbers if number != -1]
            for sentence in item["sentences"]
        ]
    return expected


def samples(frozen: FrozenSet, tag: str) -> dict[int, Sample]:
    """Return the samples of a source by record number."""
    result = [frozen[row] for row in frozen.rows_of_source(tag)]
    assert len({sample.origin.record for sample in result}) == len(result)
    return {sample.origin.record: sample for sample in result}


def answered(sample: Sample) -> Found:
    """The names and boxes of an answer, by a pattern of our own; nothing else stands in it."""
    _, answer = sample.turns
    if answer.text == "None":
        return []
    result = []
    pieces = re.split(r"(?<=\])&", answer.text)
    for piece in pieces:
        match = BOX.search(piece)
        assert match is not None
        assert match.end() == len(piece)
        result.append((piece[: match.start()].removesuffix("-"), [float(group) for group in match.groups()]))
    return result


def in_order(result: Found) -> Found:
    """From left to right, then from top to bottom."""
    return sorted(result, key=lambda item: item[1][:2])


def test_the_counts_are_those_of_the_raw_files(frozen: FrozenSet) -> None:
    coco, o365 = raw("coco/instances.json"), raw("objects365/zhiyuan_objv2_train.json")
    of_train = sum(len(entry["sentences"]) for entry in refs("train"))
    regions = [
        (entry["id"], item["phrase"].strip())
        for entry in raw("visual_genome/region_descriptions.json")
        for item in entry["regions"]
    ]
    # An expression of REG may stand in a list with others, each of which is a record.
    reg = sum(
        len(entry["expression"]) if isinstance(entry["expression"], list) else 1
        for entry in raw("ccmd/refcoco_reg.jsonl")
    )
    expected = {
        "LAZY_0": len(raw("llava/sharegpt4v_captions.json")),
        "LAZY_1": len(raw("llava/instruct.json")),
        "DET_0": len(raw("ccmd/coco_det.jsonl")),
        "RANDDET_0": len(raw("ccmd/coco_randet.jsonl")),
        "REG_0": reg,
        "VG_0": len(raw("ccmd/refcoco_vg.jsonl")),
        "VISJ_0": len(raw("ccmd/coco_count.jsonl")),
        "DET_coco": len(coco["images"]),
        "DET_o365": len(o365["images"]),
        "DET_vg": len(raw("visual_genome/objects.json")),
        "REG_vg": len(regions),
        "VG_vg": len(set(regions)),  # regions of the same image and phrase are one sample
        "REG_refcoco": of_train,  # a sample for each sentence; those of testA are left out
        "VG_refcoco": of_train,
        "VG_grefcoco": sum(len(entry["sentences"]) for entry in raw("grefcoco/grefs(unc).json")),  # all are of train
    }
    assert {source.tag: source.records for source in frozen.lock.sources} == expected
    # Nothing is amiss in these files but one image without objects, in COCO and in the records made of it.
    nothing = sum(not any(item["bboxes"] for item in entry["objects"]) for entry in raw("ccmd/coco_det.jsonl"))
    no_objects = {"DET_0": nothing, "DET_coco": sum(not value for value in of_coco("coco/instances.json").values())}
    assert no_objects == {"DET_0": 1, "DET_coco": 1}
    for source in frozen.lock.sources:
        rejected = no_objects.get(source.tag, 0)
        assert source.rejected == ({"no_objects": rejected} if rejected else {})
        assert source.samples == source.records - rejected
    # The boxes that are left out are the crowds, and no others.
    dropped: dict[str, Counter[str]] = {}
    for shard in frozen.lock.shards:
        dropped.setdefault(shard.name.partition("/")[0], Counter()).update(shard.dropped_boxes)
    crowds = {"DET_coco": coco, "DET_o365": o365}
    assert {tag: dict(count) for tag, count in dropped.items() if count} == {
        tag: {"crowd": sum(entry["iscrowd"] for entry in file["annotations"])} for tag, file in crowds.items()
    }
    assert {tag: count["crowd"] for tag, count in dropped.items() if count} == {"DET_coco": 5, "DET_o365": 1}


@pytest.mark.parametrize(
    ("tag", "file"), [("DET_coco", "coco/instances.json"), ("DET_o365", "objects365/zhiyuan_objv2_train.json")]
)
def test_the_boxes_of_coco(frozen: FrozenSet, tag: str, file: str) -> None:
    expected = {record: in_order(value) for record, value in of_coco(file).items() if value}
    assert {record: answered(sample) for record, sample in samples(frozen, tag).items()} == expected


def test_the_category_set_of_coco_is_complete(frozen: FrozenSet) -> None:
    """Its 80 names all fit. The first and the last in a question run into the words around them."""
    names = {category["name"] for category in raw("coco/instances.json")["categories"]}
    assert len(names) == 80
    for sample in samples(frozen, "DET_coco").values():
        assert len(names & set(sample.turns[0].text.split(", "))) >= 78


def test_the_objects_of_visual_genome(frozen: FrozenSet) -> None:
    expected = of_genome("objects.json", "objects", ("w", "h"))
    assert sum(map(len, expected)) == 91
    frozen_samples = samples(frozen, "DET_vg")
    assert [answered(frozen_samples[record]) for record in range(3)] == [in_order(item) for item in expected]


def test_the_regions_of_visual_genome(frozen: FrozenSet) -> None:
    (regions,) = of_genome("region_descriptions.json", "regions", ("width", "height"))
    assert "shade is along the street" in dict(regions)  # with a space behind it in the file
    frozen_samples = samples(frozen, "VG_vg")  # the three phrases differ, so each is one sample
    assert [answered(frozen_samples[record]) for record in range(3)] == [[region] for region in regions]
    check_reg(samples(frozen, "REG_vg"), [[region] for region in regions])


def check_reg(result: dict[int, Sample], expected: list[Found]) -> None:
    """The question has the box, and nothing else in brackets; the answer is the expression."""
    assert sorted(result) == list(range(len(expected)))
    for record, ((phrase, corners),) in enumerate(expected):
        question, answer = result[record].turns
        assert [list(map(float, match.groups())) for match in BOX.finditer(question.text)] == [corners]
        assert answer.text == phrase


def test_the_expressions_of_refcoco(frozen: FrozenSet) -> None:
    expected = of_refs(refs("train"), "refcoco/instances.json")
    assert {len(item) for item in expected} == {1}
    frozen_samples = samples(frozen, "VG_refcoco")
    assert [answered(frozen_samples[record]) for record in range(len(expected))] == expected
    check_reg(samples(frozen, "REG_refcoco"), expected)
    in_the_file = {image["file_name"] for image in raw("refcoco/instances.json")["images"]}
    assert all(
        sample.image == (REAL / "refcoco/train2014" / name).read_bytes()
        for name in in_the_file
        for sample in frozen_samples.values()
    )


def test_the_expressions_of_grefcoco(frozen: FrozenSet) -> None:
    grefs = raw("grefcoco/grefs(unc).json")
    expected = of_refs(grefs, "grefcoco/instances.json")
    frozen_samples = samples(frozen, "VG_grefcoco")
    assert [answered(frozen_samples[record]) for record in range(len(expected))] == [
        in_order(item) for item in expected
    ]
    # None only where the file says that nothing is meant; two expressions name two boxes, two name three.
    assert [item == [] for item in expected] == [item["no_target"] for item in grefs]
    assert Counter(map(len, expected)) == {1: 2, 2: 2, 3: 2, 0: 1}


def test_the_images_are_those_that_the_files_name(frozen: FrozenSet) -> None:
    o365 = raw("objects365/zhiyuan_objv2_train.json")["images"]
    for record, sample in samples(frozen, "DET_o365").items():
        parts = Path(o365[record]["file_name"]).parts
        assert len(parts) == 4  # longer than the folders are deep
        assert sample.image == REAL.joinpath("objects365", *parts[-2:]).read_bytes()
    urls = {image["image_id"]: image["url"] for image in raw("visual_genome/image_data.json")}
    objects = raw("visual_genome/objects.json")
    for record, sample in samples(frozen, "DET_vg").items():
        # VG_100K and VG_100K_2 are unpacked into one folder here.
        name = Path(urls[objects[record]["image_id"]]).name
        assert sample.image == (REAL / "visual_genome/VG_100K_2" / name).read_bytes()
