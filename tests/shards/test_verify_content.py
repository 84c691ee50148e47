"""Sets whose every checksum is right, but whose content no build writes: `verify` finds that too."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from griffon_shards import Origin, Sample, verify_set
from griffon_shards.sample_json import encode_sample
from griffon_shards.types import BoxXYXY

KEY = "DET-000000001"
WHERE = f"DET-000000000.tar, sample {KEY}"
Make = Callable[..., Sample]
Write = Callable[..., Path]


@pytest.fixture
def faults_of(tmp_path: Path, make_sample: Make, write_set: Write) -> Callable[..., list[str]]:
    """Return the faults that `verify` finds in a set of four samples, one of which is given."""

    def faults(sample: Sample, *, deep: bool, options: Mapping[str, Any] | None = None) -> list[str]:
        others = [make_sample(f"DET-{record:09d}") for record in (0, 2, 3)]
        root = tmp_path / f"set {len(list(tmp_path.iterdir()))}"
        return list(verify_set(write_set(root, [others[0], sample, *others[1:]], **(options or {})), deep=deep))

    return faults


def said_of_the_sample(faults: list[str]) -> str:
    (fault,) = faults
    assert f"DET/DET-000000.tar, sample {KEY}: " in fault
    return fault.rpartition(f"{KEY}: ")[2]


@pytest.mark.parametrize("deep", [False, True])
def test_samples_as_builds_write_them_have_no_fault(
    tmp_path: Path, make_sample: Make, write_set: Write, deep: bool
) -> None:
    box = "[0.100,0.200,0.300,0.400]"
    samples = [
        make_sample("DET_a-000000004", f"cat-{box}&dog-{box}", "None", f"cat-{box}"),
        make_sample("LAZY-000000000", "Any answer at all & more.", size_px=None),
        make_sample("REG-000000001", "a cat", question=f"What is in {box}?"),
        make_sample("VG-000000002", "None"),
        make_sample("VISJ-000000003", f"{box}&{box}", region_xyxy_px=(1.0, 2.0, 3.0, 4.0)),
    ]
    assert list(verify_set(write_set(tmp_path / "set", samples), deep=deep)) == []


def test_json_of_another_form(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    sample = make_sample(KEY)
    json = encode_sample(sample).replace(b'"task":"DET"', b'"task": "DET"')
    message = said_of_the_sample(faults_of(sample, deep=False, options={"json": {KEY: json}}))
    assert message == "its JSON is not in canonical form"


def test_json_that_is_not_a_sample(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    (fault,) = faults_of(make_sample(KEY), deep=False, options={"json": {KEY: b"{}"}})
    assert f"{KEY}.json is not a sample" in fault


def test_a_record_other_than_the_key_says(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    sample = make_sample(KEY)
    stranger = encode_sample(replace(sample, origin=Origin(annotation="x", record=9)))
    faults = faults_of(sample, deep=False, options={"json": {KEY: stranger}})
    assert said_of_the_sample(faults) == f"the shard holds {KEY} (record 9) instead"


@pytest.mark.parametrize(("field", "value"), [("task", 4), ("has_image", 0)])
def test_task_or_image_other_than_the_index_says(
    faults_of: Callable[..., list[str]], make_sample: Make, field: str, value: int
) -> None:
    def edit(rows: Any) -> None:  # noqa: ANN401 - structured rows
        rows[field][1] = value

    faults = faults_of(make_sample(KEY), deep=False, options={"edit": edit})
    assert said_of_the_sample(faults) == "its task or image does not match the index"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("record", 8, "sample DET-000000008: the shard holds DET-000000001 (record 1) instead"),
        ("offset", 512, "sample DET-000000001: the index has offset 512, the sample begins at"),
        ("crc32", 0, "sample DET-000000001: damaged"),
        ("shard", 1, "DET-000000.tar: 1 row in the index, the lock says 2 samples"),
    ],
)
def test_an_index_that_does_not_fit(
    faults_of: Callable[..., list[str]], make_sample: Make, field: str, value: int, expected: str
) -> None:
    def edit(rows: Any) -> None:  # noqa: ANN401 - structured rows
        rows[field][1] = value

    faults = faults_of(make_sample(KEY), deep=False, options={"edit": edit})
    assert any(expected in fault for fault in faults), faults


def test_deep_an_image_that_does_not_decode(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    sample = make_sample(KEY, size_px=(300, 200))
    assert sample.image is not None
    cut = replace(sample, image=sample.image[: len(sample.image) // 2])
    assert said_of_the_sample(faults_of(cut, deep=True)).startswith("the image does not decode: ")


def test_deep_bytes_that_are_no_image(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    faults = faults_of(replace(make_sample(KEY), image=b"no picture"), deep=True)
    assert said_of_the_sample(faults).startswith("the image does not decode: ")


def test_deep_an_image_of_another_size(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    faults = faults_of(replace(make_sample(KEY, "None"), width_px=65), deep=True)
    assert said_of_the_sample(faults) == "the image is (64, 48), its JSON says (65, 48)"


def test_deep_an_answer_that_is_not_of_the_grammar(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    faults = faults_of(make_sample(KEY, "cat-[0.1,0.2,0.3,0.4]"), deep=True)
    assert said_of_the_sample(faults).startswith("not an answer of task DET with text boxes")


def test_deep_an_answer_of_a_later_variant(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    faults = faults_of(make_sample(KEY, "None", "cat-[0.100,0.200,0.300,4.000]"), deep=True)
    assert said_of_the_sample(faults).startswith("a coordinate is above 1")


def test_deep_another_number_of_boxes_than_the_index_says(
    faults_of: Callable[..., list[str]], make_sample: Make
) -> None:
    def edit(rows: Any) -> None:  # noqa: ANN401 - structured rows
        rows["boxes"][1] = 2

    faults = faults_of(make_sample(KEY), deep=True, options={"edit": edit})
    assert said_of_the_sample(faults) == "its answers hold 1 box, the index says 2"


BOX_PX = (6.4, 9.6, 19.2, 19.2)


@pytest.mark.parametrize(
    ("boxes_xyxy_px", "message"),
    [
        ((BOX_PX, BOX_PX), "its JSON lists 2 boxes, its answers hold 1"),
        ((), "its JSON lists 0 boxes, its answers hold 1"),
        (((6.4, 9.6, 19.2, 19.3),), "box 0 of its JSON is (6.4, 9.6, 19.2, 19.3), its answer has "),
    ],
)
def test_deep_boxes_in_pixels_that_are_not_those_of_the_answer(
    faults_of: Callable[..., list[str]], make_sample: Make, boxes_xyxy_px: tuple[BoxXYXY, ...], message: str
) -> None:
    sample = make_sample(KEY)
    altered = replace(sample, renderings=(replace(sample.renderings[0], boxes_xyxy_px=boxes_xyxy_px),))
    assert said_of_the_sample(faults_of(altered, deep=True)).startswith(message)


def test_deep_boxes_without_an_image(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    message = said_of_the_sample(faults_of(make_sample(KEY, size_px=None), deep=True))
    assert message == "its JSON lists boxes in an image of 0x0 px"


def test_deep_a_box_in_pixels_that_leaves_the_image(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    sample = make_sample(KEY, "cat-[0.100,0.200,1.000,0.400]")
    for right_px, faults in ((64.0, 0), (64.01, 1)):
        box = (6.4, 9.6, right_px, 19.2)
        altered = replace(sample, renderings=(replace(sample.renderings[0], boxes_xyxy_px=(box,)),))
        assert len(faults_of(altered, deep=True)) == faults


def test_boxes_in_pixels_of_a_variant_are_compared_too(faults_of: Callable[..., list[str]], make_sample: Make) -> None:
    sample = make_sample(KEY, "cat-[0.100,0.200,0.300,0.400]", "None")
    swapped = tuple(
        replace(item, boxes_xyxy_px=boxes)
        for item, boxes in zip(sample.renderings, ((BOX_PX,), (BOX_PX,)), strict=True)
    )
    message = said_of_the_sample(faults_of(replace(sample, renderings=swapped), deep=True))
    assert message == "its JSON lists 1 box, its answers hold 0"


@pytest.mark.parametrize("deep", [False, True])
def test_a_set_from_before_samples_had_boxes_in_pixels(
    tmp_path: Path, make_sample: Make, write_set: Write, deep: bool
) -> None:
    sample = make_sample(KEY)
    without = replace(sample, renderings=(replace(sample.renderings[0], boxes_xyxy_px=None),))
    old = {"boxes": "text", "render_version": 2}
    assert list(verify_set(write_set(tmp_path / "old", [without], render=old), deep=deep)) == []
    (fault,) = verify_set(write_set(tmp_path / "new", [without]), deep=deep)
    assert fault.endswith(f"{KEY}: its JSON has no boxes, unlike sets of its render_version")


def test_without_deep_images_and_answers_are_taken_as_they_are(
    faults_of: Callable[..., list[str]], make_sample: Make
) -> None:
    assert faults_of(replace(make_sample(KEY, "nonsense"), image=b"no picture"), deep=False) == []
