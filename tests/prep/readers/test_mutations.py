"""Published files spoilt in thousands of ways: an error, rejected records, or answers that are right; nothing else.

The correct answers are derived in plain Python from what `json` finds in the spoilt file. A file that as a whole is not
JSON may give the answers of its undamaged records only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from griffon_shards.types import Sample

from . import mutations as m
from .conversation_oracles import spoken
from .oracle_values import AMISS, Answer, Told
from .oracles import ORACLES
from .published import box, coco, picture, ref

BLOCK = 250
"""Cases of a test, that several processes may share those of a target."""
UNREAD = (b"\\ud8", b"0" * 18, b"%d" % 2**64)
"""What `json` reads and a sample cannot hold, half a character and numbers that are too large: what has it in it is one
rejected record, whatever it holds besides."""

SEGMENTS: dict[str, Any] = {"segmentation": {"counts": 'k]d5"}, {"\\', "size": [100, 200]}, "area": 20.5}
INSTANCES = coco(
    [picture(7, neg_category_ids=[3]), picture(8), picture(9), picture(10, coco_url="http://x/train2017/10.jpg")],
    [
        box(70, 7, 17, **SEGMENTS),
        box(80, 8, 18, bbox=[100.5, 0, 150, 30.25]),
        box(71, 7, 18, iscrowd=1, segmentation=[[1, 2, 3, 4]]),
        box(72, 7, 17, bbox=[5, 5, 20, 20]),
        box(90, 9, 90, segments_info=[{"id": 1, "bbox": [1, 2, 3, 4]}]),
    ],
)
ENTRIES = coco(
    [picture(7, caption="a cat"), picture(8, file_name="7.jpg", caption="two of them"), picture(9, caption="a dog")],
    [box(1, 7), box(2, 8, tokens_positive=[[0, 3]]), box(3, 8, bbox=[100, 0, 50, 50]), box(4, 9, bbox=[1, 1, 9, 9])],
)
PARTS = coco(
    [
        picture(7, caption="a cat , a dog"),
        picture(8, file_name="7.jpg", caption="two of them"),
        picture(9, caption="it"),
    ],
    [
        box(1, 7, tokens_positive=[[0, 5]]),
        box(2, 8, tokens_positive=[[0, 3]]),
        box(3, 7, tokens_positive=[[8, 13], [0, 5]], bbox=[100, 0, 50, 50]),
        box(4, 8, tokens_positive=[[7, 11]], bbox=[1, 1, 9, 9]),
    ],
)
REFS = [
    ref(70, "left cat", "the left one", image_id=7),
    ref(72, "other", image_id=7, split="val"),
    ref(80, "a dog", image_id=8),
    ref(90, "猫", image_id=9),
]
GREFS: list[dict[str, Any]] = [
    {"no_target": False, **item}
    for item in (
        ref([70, 72], "both cats", image_id=7),
        ref([-1], "a zebra", image_id=8, no_target=True),
        ref([80], "a dog", "it", image_id=8),
        ref([90], "a cow", image_id=9, split="val"),
    )
]
WHERE: list[dict[str, Any]] = [{"x": 10, "y": 20}, {"x": 100.5, "y": 0}, {"x": 5, "y": 5}]
OBJECTS = [
    {
        "image_id": number,
        "objects": [{**xy, "w": 30, "h": 40, "names": [name, "x"]} for xy, name in zip(WHERE, names, strict=True)],
    }
    for number, names in ((7, ("cat", " Dog", "cat")), (8, ("emu", "cow", "dog")))
]
REGIONS = [
    {
        "id": number,
        "regions": [
            {**xy, "width": 30, "height": 40, "phrase": phrase} for xy, phrase in zip(WHERE, phrases, strict=True)
        ],
    }
    for number, phrases in ((7, ("a cat", "a dog", "a cat ")), (8, ("an emu", "a cow", "a dog")))
]
IMAGE_DATA = [
    {"image_id": number, "width": 200, "height": 100, "url": f"http://x/VG_100K/{number}.jpg", "coco_id": None}
    for number in (8, 7, 9)
]
LINE = {"image_path": "7.jpg", "height": 100, "width": 200}
LINES = [
    {**LINE, "objects": [{"category_name": "cat", "bboxes": [[1, 2, 30, 40]]}, {"category_name": "dog", "bboxes": []}]},
    {**LINE, "image_path": "8.jpg", "objects": [{"category_name": "emu", "bboxes": [[5, 5, 9.5, 9], [0, 0, 20, 30]]}]},
]
EXPRESSIONS = [
    {**LINE, "expression": "a cat", "bboxes": [[1, 2, 30, 40]]},
    {**LINE, "expression": "a dog", "bboxes": [10, 20, 30, 40]},
    {**LINE, "image_path": "8.jpg", "expression": ["one", "two"], "bboxes": [[1, 2, 30, 40], [5, 5, 50, 50]]},
    {**LINE, "image_path": "9.jpg", "expression": "both", "bboxes": [[1, 2, 30, 40], [5, 5, 50, 50]]},
    {**LINE, "image_path": "9.jpg", "expression": "none", "bboxes": []},
]
ASKED = {"from": "human", "value": "<image>What?"}
TALKS = [
    {"image": "7.jpg", "conversations": [ASKED, {"from": "gpt", "value": "A cat."}]},
    {"conversations": [{"from": "user", "value": "1+1?"}, {"from": "model", "value": 2}]},
    {
        "image": ["8.jpg"],
        "conversations": [{"from": "system", "value": "x"}, ASKED, {"from": "assistant", "value": "Yes."}],
    },
]


USER, ASSISTANT = "user", "assistant"


def talk(
    question: str, answer: str, image: str, refs: list[str], boxes: list[list[float]], **more: object
) -> dict[str, Any]:
    turns = [{"role": USER, "content": question}, {"role": ASSISTANT, "content": answer}]
    return {"messages": turns, "images": [image], "objects": {"ref": refs, "bbox": boxes, **more}}


SMALL, LARGE = [0.1, 0.2, 0.5, 0.75], [0.25, 0.0, 1.0, 0.5]
GROUNDED = [
    talk("<image>Find the <ref-object>.", "<bbox><bbox>", "7.jpg", ["cat"], [SMALL, LARGE], bbox_type="norm1"),
    talk("<image>What?", "<ref-object><bbox> and <ref-object><bbox>", "8.jpg", ["emu", "cow"], [LARGE, SMALL]),
    {"messages": [{"role": USER, "content": "1+1?"}, {"role": ASSISTANT, "content": "2"}]},
    talk("<image>All <ref-object>?", "Here: <bbox>", "9.jpg", ["a dog"], [[0, 0.5, 1.5, 2]], image_id=[0]),
]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format and the file of it that is spoilt."""

    oracle: str
    tasks: tuple[str, ...]
    annotation: Any
    companion: Any = None
    beside: str = ""
    spoil_companion: bool = False
    cases: int = 2000
    write: Callable[[Any, Random | None], bytes] = m.as_json
    read: Callable[[bytes], Any] = m.from_json


GENOME: dict[str, Any] = {"companion": IMAGE_DATA, "beside": "image_data.json"}
BESIDE: dict[str, Any] = {"companion": INSTANCES, "beside": "instances.json"}
PICKLED: dict[str, Any] = {"write": m.as_pickle, "read": m.from_pickle}
IN_LINES: dict[str, Any] = {"write": m.as_lines, "read": m.from_lines}
HALF: dict[str, Any] = {"cases": 1000}  # of two that share a format
QUARTER: dict[str, Any] = {"cases": 500}
TALKED = ("LAZY", "DET", "VG")
HALF_BESIDE: dict[str, Any] = {"spoil_companion": True, **HALF}
BOTH = ("REG", "VG")
TARGETS = {
    "coco": Target(oracle="coco", tasks=("DET",), annotation=INSTANCES),
    "mdetr": Target(oracle="mdetr", tasks=BOTH, annotation=ENTRIES),
    "mdetr in parts": Target(oracle="in parts", tasks=BOTH, annotation=PARTS, **QUARTER),
    "grounding-jsonl": Target(oracle="grounded", tasks=TALKED, annotation=GROUNDED, **IN_LINES, **QUARTER),
    "visual_genome objects": Target(oracle="objects", tasks=("DET",), annotation=OBJECTS, **GENOME),
    "visual_genome regions": Target(oracle="regions", tasks=BOTH, annotation=REGIONS, **GENOME),
    "image_data of objects": Target(oracle="objects", tasks=("DET",), annotation=OBJECTS, **HALF_BESIDE, **GENOME),
    "image_data of regions": Target(oracle="regions", tasks=BOTH, annotation=REGIONS, **HALF_BESIDE, **GENOME),
    "refcoco": Target(oracle="pickle", tasks=BOTH, annotation=REFS, **PICKLED, **BESIDE),
    "grefcoco": Target(oracle="grefs", tasks=BOTH, annotation=GREFS, **BESIDE),
    "instances of refcoco": Target(oracle="pickle", tasks=BOTH, annotation=REFS, **HALF_BESIDE, **PICKLED, **BESIDE),
    "instances of grefcoco": Target(oracle="grefs", tasks=BOTH, annotation=GREFS, **HALF_BESIDE, **BESIDE),
    "ccmd": Target(oracle="ccmd", tasks=("DET",), annotation=LINES, **IN_LINES, **HALF),
    "ccmd of expressions": Target(oracle="expressions", tasks=BOTH, annotation=EXPRESSIONS, **IN_LINES, **HALF),
    "llava": Target(oracle="llava", tasks=("LAZY",), annotation=TALKS, **HALF),
    "llava in lines": Target(oracle="llava", tasks=("LAZY",), annotation=TALKS, **IN_LINES, **HALF),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(7, 11):
        Image.new("RGB", (2, 2), (i * 20, 0, 0)).save(tmp_path / f"{i}.jpg", comment=str(i))
    return tmp_path


def files_of(target: Target, random: Random | None) -> dict[str, bytes]:
    """The files of a target, spoilt, or with no `random` as they should be."""
    files = {"annotation": target.write(target.annotation, None)}
    if target.beside:
        files[target.beside] = m.as_json(target.companion)
    if random is None:
        return files
    name = target.beside if target.spoil_companion else "annotation"
    if random.random() < 0.6:
        value = m.spoilt_value(random, target.companion if target.spoil_companion else target.annotation)
        files[name] = (m.as_json if target.spoil_companion else target.write)(value, random)
    else:
        files[name] = m.spoilt_bytes(random, files[name])
    return files


def told_of(target: Target, files: Mapping[str, bytes], task: str) -> Told | None:
    """The answers that are right; None for files that cannot be read completely."""
    try:
        annotation = target.read(files["annotation"])
        companion = m.from_json(files[target.beside]) if target.beside else None
    except (ValueError, RecursionError):
        return None
    try:
        return ORACLES[target.oracle](annotation, companion, task)
    except AMISS:
        return set(), None


def answer_in(sample: Sample, image_names: Mapping[bytes, str]) -> Answer:
    file = image_names[sample.image] if sample.image is not None else ""
    texts = [turn.text for turn in sample.turns]
    if sample.task == "LAZY":
        return file, "", spoken(texts)
    question, answer = texts
    return file, question.removeprefix("<image>\n") if sample.task == "REG" else "", answer


@pytest.mark.parametrize("name", TARGETS)
def test_the_files_as_they_should_be_give_all_their_answers(folder: Path, name: str) -> None:
    """Otherwise the correct answers of the tests below could not be trusted."""
    target = TARGETS[name]
    names = {path.read_bytes(): path.name for path in folder.glob("*.jpg")}
    for task in target.tasks:
        files = files_of(target, None)
        made, reported = m.made_of(folder, files, task, Random(0)), told_of(target, files, task)
        assert isinstance(made, m.Made)
        assert reported is not None
        right, count = reported
        assert {answer_in(sample, names) for sample in made.samples} == {item for item in right if item[2]}
        assert count in (None, made.records)


@pytest.mark.parametrize(
    ("name", "first"), [(name, first) for name in TARGETS for first in range(0, TARGETS[name].cases, BLOCK)]
)
def test_no_spoilt_file_gives_a_wrong_answer(folder: Path, name: str, first: int) -> None:
    target = TARGETS[name]
    names = {path.read_bytes(): path.name for path in folder.glob("*.jpg")}
    with_samples = 0
    for case in range(first, first + BLOCK):
        random = Random(f"{name} {case}")
        task = target.tasks[case % len(target.tasks)]
        files = files_of(target, random)
        made = m.made_of(folder, files, task, random)
        if isinstance(made, str):
            continue
        reported = told_of(target, files, task)
        right, count = reported or told_of(target, files_of(target, None), task) or (set(), None)
        actual = {answer_in(sample, names) for sample in made.samples}
        assert actual <= right, (case, files)
        if reported is not None and not any(mark in content for mark in UNREAD for content in files.values()):
            assert count in (None, made.records), (case, files)
        with_samples += bool(actual)
    assert with_samples > BLOCK // 8


SEVERAL_CASES = 250
TWELVE = [
    {"id": i, "conversations": [ASKED | {"value": f"{i}?"}, {"from": "gpt", "value": f"Nr, {i}"}]} for i in range(12)
]
SEVERAL: dict[str, Target] = {
    **TARGETS,
    "twelve in an array": Target(oracle="llava", tasks=("LAZY",), annotation=TWELVE),
    "twelve in lines": Target(oracle="llava", tasks=("LAZY",), annotation=TWELVE, **IN_LINES),
}


def several_in(target: Target, random: Random) -> tuple[dict[str, bytes], Any, Any]:
    """The files with two or three faults in one of them; what its elements hold, and those of them without a fault."""
    files = files_of(target, None)
    if target.write is m.as_lines:
        spoilt = files["annotation"]
        for _ in range(random.choice([2, 2, 3])):
            spoilt = m.spoilt_bytes(random, spoilt) or b" "
        lines = [line if line in files["annotation"].split(b"\n") else b"-" for line in spoilt.split(b"\n")]
        return {"annotation": spoilt}, m.from_lines(spoilt), m.from_lines(b"\n".join(lines))
    if target.write is m.as_pickle and not target.spoil_companion:
        spoilt = files["annotation"]
        for _ in range(random.choice([2, 2, 3])):
            spoilt = m.spoilt_bytes(random, spoilt) or b" "
        if random.random() < 0.5:  # few bytes of a pickle can be changed, and it is one still
            spoilt = m.as_pickle(m.spoilt_value(random, target.annotation), random)
        return {**files, "annotation": spoilt}, [], []  # what cannot be read completely gives nothing
    several = m.several_faults(random, target.companion if target.spoil_companion else target.annotation)
    name = target.beside if target.spoil_companion else "annotation"
    return {**files, name: several.data}, several.value, several.untouched


@pytest.mark.parametrize("name", SEVERAL)
def test_with_several_faults_intact_records_keep_their_numbers(folder: Path, name: str) -> None:
    """If not, the file is refused: no record is silently lost, whatever is around it."""
    target = SEVERAL[name]
    names = {path.read_bytes(): path.name for path in folder.glob("*.jpg")}
    read = 0
    for case in range(SEVERAL_CASES):
        random = Random(f"several {name} {case}")
        task = target.tasks[case % len(target.tasks)]

        def told(value: Any, target: Target = target, task: str = task) -> Told:  # noqa: ANN401 - JSON
            annotation, companion = (target.annotation, value) if target.spoil_companion else (value, target.companion)
            return ORACLES[target.oracle](annotation, companion, task)

        files, value, untouched = several_in(target, random)
        made = m.made_of(folder, files, task, random)
        if isinstance(made, str):
            continue
        read += 1
        as_it_is = told_of(target, files, task)
        right, count = as_it_is or told(value)
        answers = [answer_in(sample, names) for sample in made.samples]
        assert set(answers) <= right, (case, files)
        if any(mark in content for mark in UNREAD for content in files.values()):
            continue
        assert count in (None, made.records), (case, files)
        if isinstance(untouched, dict) and None in untouched["annotations"] + untouched["categories"]:
            continue  # a fault there may be one of several images
        before = told(target.companion if target.spoil_companion else target.annotation)[0]
        assert {item for item in right & before & told(untouched)[0] if item[2]} <= set(answers), (case, files)
        if target.oracle == "llava" and as_it_is is None:
            for number, answer in zip(made.numbers, answers, strict=True):
                assert answer in told([value[number]])[0], (case, files)
    assert read > SEVERAL_CASES // 12
