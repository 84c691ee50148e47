"""Every reason to reject a record can come about, and says what was found."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from griffon_prep.build.sample_maker import SampleMaker
from griffon_prep.images import absolute_root
from griffon_prep.readers import FORMATS
from griffon_prep.readers.base import AnnotationFiles
from griffon_prep.records import REASONS, UNCOUNTED_REASONS, Rejected
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.types import Sample

from .rendering import OURS

VG: dict[str, Any] = {"image_path": "a.jpg", "width": 64, "height": 48, "expression": "x", "bboxes": [[1, 2, 30, 40]]}
ASK, ANSWER = {"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "That."}
LAZY: dict[str, Any] = {"image": "a.jpg", "conversations": [ASK, ANSWER]}
DET: dict[str, Any] = {"image_path": "a.jpg", "width": 64, "height": 48, "objects": []}
CASES: list[tuple[str, str, Any, str]] = [
    ("bad_json", "VG", '{"image_path": "a.jpg\n' + json.dumps(VG), "Unterminated string"),
    ("bad_record", "VG", {**VG, "width": None}, "width: expected a whole number of pixels above 0, got None"),
    ("no_turns", "LAZY", {**LAZY, "conversations": []}, "0 turn"),
    ("several_pictures", "LAZY", {**LAZY, "image": ["a.jpg", "b.jpg"]}, "image: expected one image, got a list of 2"),
    ("picture_field_unknown", "LAZY", {**LAZY, "image": None, "video": "a.mp4"}, "video: 'a.mp4'"),
    ("image_token_without_picture", "LAZY", {"conversations": [ASK, ANSWER]}, "but the record has no image"),
    ("image_token_in_text", "VG", {**VG, "expression": "an <image>"}, "an <image>"),
    (
        "foreign_boxes",
        "LAZY",
        {**LAZY, "conversations": [ASK, {"from": "gpt", "value": "<box>(1,2),(3,4)</box>"}], "image": "a.jpg"},
        r"the text has '<box>\('; add format=grounding-jsonl to the manifest line",
    ),
    ("no_objects", "DET", DET, r"a\.jpg: no boxes"),
    (
        "boxes_not_in_pixels",
        "VG",
        {**VG, "bboxes": [[0.1, 0.2, 0.5, 1]]},
        r"a\.jpg: .*\[0\.1, 0\.2, 0\.5, 1\] in an image of 64x48",
    ),
    ("all_boxes_dropped", "VG", {**VG, "bboxes": [[64, 1, 70, 9], [9, 9, 1, 1]]}, "1 inverted, 1 outside"),
    ("path_outside_root", "VG", {**VG, "image_path": "../a.jpg"}, r"\.\./a\.jpg"),
    ("picture_not_found", "VG", {**VG, "image_path": "gone/b.jpg"}, r"gone/b\.jpg"),
    (
        "picture_unreadable",
        "VG",
        {**VG, "image_path": "cut.jpg"},
        r"cut\.jpg: a damaged JPEG \(image file is truncated",
    ),
    ("size_mismatch", "VG", {**VG, "width": 65}, r"a\.jpg: the image is 64x48, the record says 65x48"),
]


def make(folder: Path, task: str, line: object, check: str = "decode") -> Sample:
    """The sample that a build makes of the first line of a file."""
    image = Image.effect_noise((64, 48), 50)
    image.save(folder / "a.jpg")
    (folder / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-200])
    annotation, work = folder / "a.jsonl", folder / "work"
    annotation.write_text(line if isinstance(line, str) else json.dumps(line))
    work.mkdir()
    name = "llava" if task == "LAZY" else "ccmd"
    inputs = AnnotationFiles(annotation=annotation, companions={}, task=task, options={}, work=work)
    vocabulary = FORMATS[name].scan(inputs).vocabulary
    maker = SampleMaker(
        reader=FORMATS[name].Reader(inputs),
        rounds=None,
        source=Source(tag=f"{task}_x", task=task, vocabulary=vocabulary),
        settings=RenderSettings(seed=0, boxes="text", det_categories=80, variants=2, templates=OURS, check=check),
        annotation_name="注 a.jsonl",
        image_root=absolute_root(folder),
    )
    return maker.make(0)[0]


def test_every_reason_has_a_case() -> None:
    assert {reason for reason, *_ in CASES} | {"excluded"} == set(REASONS)  # tests of whole builds exclude
    assert set(UNCOUNTED_REASONS) == {"no_objects", "excluded"}


@pytest.mark.parametrize(("reason", "task", "line", "message"), CASES, ids=[reason for reason, *_ in CASES])
def test_reason_and_detail(tmp_path: Path, reason: str, task: str, line: object, message: str) -> None:
    with pytest.raises(Rejected) as caught:
        make(tmp_path, task, line)
    assert caught.value.reason == reason
    assert re.search(message, caught.value.detail)
    assert str(tmp_path) not in caught.value.detail  # the same words wherever the data lie


@pytest.mark.parametrize(("task", "line"), [("VG", VG), ("LAZY", LAZY)])
def test_a_good_record_becomes_a_sample(tmp_path: Path, task: str, line: dict[str, Any]) -> None:
    sample = make(tmp_path, task, line)
    assert sample.key == f"{task}_x-000000000"
    assert (sample.task, sample.image_format, sample.width_px, sample.height_px) == (task, "JPEG", 64, 48)
    assert sample.image == (tmp_path / "a.jpg").read_bytes()
    assert (sample.origin.annotation, sample.origin.record) == ("注 a.jsonl", 0)
    assert len(sample.renderings) == 2


def test_a_text_alone_becomes_a_sample(tmp_path: Path) -> None:
    sample = make(tmp_path, "LAZY", {"conversations": [{"from": "human", "value": "What?"}, ANSWER]})
    assert (sample.image, sample.image_format, sample.width_px, sample.height_px) == (None, "", 0, 0)


def test_a_cut_image_passes_only_where_nothing_is_checked(tmp_path: Path) -> None:
    cut = {**VG, "image_path": "cut.jpg"}
    assert make(tmp_path, "VG", cut, check="none").image_format == "JPEG"
    (tmp_path / "work").rename(tmp_path / "done")
    with pytest.raises(Rejected, match=r"cut\.jpg: a truncated JPEG"):
        make(tmp_path, "VG", cut, check="header")


def test_every_reason_is_explained_to_users() -> None:
    text = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"\n| `{reason}` |" not in text] == []
