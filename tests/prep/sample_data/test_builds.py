"""Every line of the sample data's manifest builds, and different formats give the same samples of the same scenes."""

import importlib.util
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from griffon_prep.readers import FORMATS
from griffon_prep.sample_data import write_sample_data
from griffon_prep.sample_data.coco_writer import CATEGORY_IDS, lvis_image_records
from griffon_prep.sample_data.scene import CATEGORIES, boxes_by_category, scene
from griffon_prep.sample_data.words import NUMBERS
from griffon_prep.sources.manifest import read_manifest
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.grammar import parse_answer
from griffon_shards.types import Sample

from ..conftest import run_prep

Answered = Counter[tuple[bytes | None, str]]


def freeze(data: Path, out: Path) -> FrozenSet:
    built = run_prep("build", "--manifest", data / "manifest.txt", "--data-root", data, "--out", out, "--workers", 2)
    assert built.returncode == 0, built.stderr
    return open_set(out)


@pytest.fixture(scope="module")
def frozen(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    return freeze(drawn_data, tmp_path_factory.mktemp("frozen") / "set")


def samples(frozen: FrozenSet, tag: str) -> list[Sample]:
    return [frozen[row] for row in frozen.rows_of_source(tag)]


def answers(frozen: FrozenSet, tag: str) -> Answered:
    """How often each answer is given to each image."""
    return Counter(
        (sample.image, turn.text) for sample in samples(frozen, tag) for turn in sample.turns if turn.role == "gpt"
    )


def test_nothing_is_rejected_but_images_without_objects(drawn_data: Path, frozen: FrozenSet) -> None:
    sources = frozen.lock.sources
    assert [source.tag for source in sources] == [line.tag for line in read_manifest(drawn_data / "manifest.txt")]
    assert all(source.samples > 0 for source in sources)
    rejected = {source.tag: dict(source.rejected) for source in sources if source.rejected}
    with_empty_images = ("DET_coco", "RANDDET_coco", "VISJ_coco", "DET_yolo", "VISJ_yolo", "DET_voc", "DET_labelme")
    assert rejected == {tag: {"no_objects": 3} for tag in with_empty_images}
    needs_extra = set() if importlib.util.find_spec("pyarrow") else {"parquet"}
    assert {source.format for source in sources} == set(FORMATS) - needs_extra


def test_the_set_is_complete(frozen: FrozenSet) -> None:
    command = [sys.executable, "-m", "griffon_shards", "verify", "--deep", str(frozen.root)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout[:3]) == (0, "ok:"), result.stderr


@pytest.mark.parametrize("images", [1, 2, 3])
def test_few_images_build_too(tmp_path: Path, images: int) -> None:
    data = write_sample_data(tmp_path / "data", seed=5, images=images).parent
    frozen = freeze(data, tmp_path / "set")
    assert all(source.samples > 0 and not source.rejected for source in frozen.lock.sources)
    tags = {source.tag for source in frozen.lock.sources}
    assert ("VG_refcoco_val" in tags) == (images > 1)
    assert tags == {line.tag for line in read_manifest(data / "manifest.txt")}


@pytest.mark.parametrize(
    "tag", ["DET_coco", "DET_vg", "DET_yolo", "DET_voc", "DET_labelme", "DET_openimages", "DET_grounding"]
)
def test_every_format_gives_the_same_detections(frozen: FrozenSet, tag: str) -> None:
    assert answers(frozen, tag) == answers(frozen, "DET_shapes")


@pytest.mark.parametrize("tag", ["VISJ_coco", "VISJ_yolo"])
def test_visual_search_shows_a_box_and_answers_with_all_of_its_category(frozen: FrozenSet, tag: str) -> None:
    number_of = {sample.image: sample.origin.record for sample in samples(frozen, "DET_shapes")}
    several = 0
    for sample in samples(frozen, tag):
        categories = boxes_by_category(scene(0, number_of[sample.image]))
        region = tuple(map(round, sample.region_xyxy_px or ()))
        alike = next(boxes for boxes in categories.values() if region in boxes)
        assert sample.boxes_xyxy_px is not None
        assert {tuple(map(round, box)) for box in sample.boxes_xyxy_px} == set(alike)
        several += len(alike) > 1
    assert several > 5


def test_lvis_asks_only_for_exhaustively_annotated_categories(frozen: FrozenSet) -> None:
    """No others are asked for or answered."""
    names = {item: name for name, item in CATEGORY_IDS.items()}
    everything = {sample.origin.record: sample for sample in samples(frozen, "DET_shapes")}
    left_out = 0
    for sample in samples(frozen, "DET_lvis"):
        pictured = scene(0, sample.origin.record)
        (image,) = lvis_image_records(pictured)
        negatives, unsure = (
            {names[item] for item in image[key]} for key in ("neg_category_ids", "not_exhaustive_category_ids")
        )
        complete = boxes_by_category(pictured).keys() - unsure
        assert {name for name in CATEGORIES if name in sample.turns[0].text} == negatives | complete
        of_all = parse_answer(everything[sample.origin.record].turns[1].text, "DET", "text")
        answered = [(name, box) for name, box in of_all if name in complete]
        assert parse_answer(sample.turns[1].text, "DET", "text") == answered
        left_out += len(of_all) - len(answered)
    dropped = [shard.dropped_boxes for shard in frozen.lock.shards if shard.name.startswith("DET_lvis/")]
    assert dropped == [{"not_exhaustive": left_out}]


def test_mdetr_gives_refcocos_answers(frozen: FrozenSet) -> None:
    for task in ("REG", "VG"):
        assert answers(frozen, f"{task}_mdetr") == answers(frozen, f"{task}_refcoco")
    assert not answers(frozen, "VG_refcoco_val") & answers(frozen, "VG_refcoco")


def test_phrases_of_captions_are_the_same_in_both_formats(frozen: FrozenSet) -> None:
    phrases = answers(frozen, "VG_phrases")
    assert phrases == answers(frozen, "VG_flickr30k")
    counted = [text for _, text in phrases if text.split()[0] in NUMBERS]
    assert len(counted) > 48
    assert all(text.count("[") == NUMBERS.index(text.split()[0]) for text in counted)


def test_conversations_about_boxes_have_the_answers_of_their_expressions(frozen: FrozenSet) -> None:
    expressions = {item: count for item, count in answers(frozen, "VG_shapes").items() if item[1] != "None"}
    assert answers(frozen, "VG_grounding") == expressions
    written, detected = (
        Counter(
            (sample.image, item)
            for sample in samples(frozen, tag)
            for item in parse_answer(sample.turns[1].text, "DET", "text")
        )
        for tag in ("LAZY_grounding", "DET_shapes")
    )
    assert written == detected


def test_parquet_has_the_conversations_and_images_of_llava(frozen: FrozenSet) -> None:
    pytest.importorskip("pyarrow")
    assert answers(frozen, "LAZY_parquet") == answers(frozen, "LAZY_caption")


def test_grefcoco_answers_with_several_boxes_one_or_none(frozen: FrozenSet) -> None:
    boxes = Counter(min(text.count("["), 2) for _, text in answers(frozen, "VG_grefcoco").elements())
    assert all(boxes[count] > 10 for count in (0, 1, 2))
    assert all((text == "None") == (text.count("[") == 0) for _, text in answers(frozen, "VG_grefcoco"))


@pytest.mark.parametrize("task", ["REG", "VG"])
def test_questions_about_an_image_of_visual_genome_share_a_sample(frozen: FrozenSet, task: str) -> None:
    frozen_samples = samples(frozen, f"{task}_vg")
    rounds = Counter(len(sample.turns) // 2 for sample in frozen_samples)
    assert max(rounds) == 4
    assert min(rounds) >= 1
    assert len({sample.image for sample in frozen_samples}) == 48
    if task == "VG":
        merged = [text for _, text in answers(frozen, "VG_vg") if text.startswith("a") and "&" in text]
        assert len(merged) > 10
