"""`rounds=K`: several questions about one image in one sample, each the very one that it would be alone."""

import json
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from griffon_prep.readers.rounds import RoundKeys, Rounds, group_records, image_key, samples_of, write_rounds
from griffon_prep.render.lazy import join_rounds
from griffon_shards.frozen_set import open_set
from griffon_shards.types import Rendering, Sample, Turn

from ..conftest import Prep
from .published import box, coco, picture, ref, write

LockOf = Callable[[Path], dict[str, Any]]
KEYS = st.lists(st.sampled_from([0, 1, 2, 3, 2**63, 2**64 - 1]), min_size=1, max_size=40)


Asked = tuple[object, str, tuple[object, ...]]
"""Image, phrase and boxes of a record."""


def keys_of(records: Sequence[Asked], task: str = "VG") -> RoundKeys:
    keys = RoundKeys(task)
    for image, phrase, boxes in records:
        keys.add(image if isinstance(image, int) else hash(image) % 2**64, phrase, boxes)
    return keys


def groups_of(
    images: Sequence[object], most: int, answers: Sequence[tuple[object, ...]] | None = None
) -> list[list[int]]:
    """Records of the same image, up to `most` together, in annotation order; the groups by their first records.

    A record goes to the first group of its image with room behind those that have a part of its answer.
    """
    answers = answers or [()] * len(images)
    groups: list[list[int]] = []
    of_image: dict[object, list[list[int]]] = {}
    for index, image in enumerate(images):
        own = of_image.setdefault(image, [])
        behind = 0
        for number, group in enumerate(own):
            if any(one == its for other in group for one, its in zip(answers[other], answers[index], strict=True)):
                behind = number + 1
        free = [group for group in own[behind:] if len(group) < most]
        if not free:
            own.append([])
            groups.append(own[-1])
        (free or own[-1:])[0].append(index)
    return sorted(groups)


def grouped(keys: RoundKeys, most: int) -> list[list[int]]:
    members, bounds = group_records(keys, most)
    return [members[start:stop].tolist() for start, stop in pairwise(bounds.tolist())]


@given(images=KEYS, most=st.integers(1, 7) | st.just(10**30))
@example([5], 1)
@example([3, 3, 3, 3], 2)
@example([1, 2, 1, 2, 1, 2, 1], 3)
def test_records_of_different_answers_are_grouped_in_their_order(images: list[int], most: int) -> None:
    keys = keys_of([(image, "it", ((number, 0, 5, 5),)) for number, image in enumerate(images)])
    assert grouped(keys, most) == groups_of(images, most)
    assert samples_of(keys, min(most, 99)) == len(grouped(keys, most))


@given(
    records=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=40),
    most=st.integers(1, 7),
    task=st.sampled_from(["VG", "REG"]),
)
@example([(0, "a", 0), (0, "b", 0), (0, "c", 1), (0, "a", 2)], 4, "REG")
def test_no_two_rounds_of_a_sample_have_the_same_answer(
    records: list[tuple[int, str, int]], most: int, task: str
) -> None:
    keys = keys_of([(image, phrase, ((box, 0, 5, 5),)) for image, phrase, box in records], task)
    groups = grouped(keys, most)
    assert sorted(index for group in groups for index in group) == list(range(len(records)))
    assert groups == sorted(groups)
    for group in groups:
        assert len(group) <= most and group == sorted(group)
        images, phrases, boxes = zip(*(records[index] for index in group), strict=True)
        assert len(set(images)) == 1 and len(set(boxes)) == len(group)
        assert task == "VG" or len(set(phrases)) == len(group)
    if task == "VG":
        images, _, boxes = zip(*records, strict=True)
        assert groups == groups_of(images, most, [(box,) for box in boxes])


def test_boxes_are_equal_however_they_are_written_and_expressions_of_nothing_are_not() -> None:
    one, same, both, reversed_both = (
        ((1, 2, 3, 4),),
        ([1.0, 2, 3, 4.0],),
        ((1, 2, 3, 4), (5, 6, 7, 8)),
        ((5, 6, 7, 8), (1, 2, 3, 4)),
    )
    assert grouped(keys_of([(0, "a", one), (0, "b", same), (0, "c", both), (0, "d", reversed_both)]), 9) == [
        [0, 2],
        [1, 3],
    ]
    assert grouped(keys_of([(0, "a zebra", ()), (0, "an ox", ()), (0, "a zebra ", ())]), 9) == [[0, 1], [2]]


def test_many_expressions_of_one_box_take_no_longer_than_they_are_many() -> None:
    """Each in a sample of its own; a search through all of them for each would never end."""
    records: list[Asked] = [(0, f"{number}", ((1, 2, 3, 4),)) for number in range(100_000)]
    assert samples_of(keys_of(records), 8) == len(records)


def test_no_records_are_no_groups() -> None:
    members, bounds = group_records(RoundKeys("VG"), 3)
    assert (members.tolist(), bounds.tolist()) == ([], [0])
    assert samples_of(RoundKeys("VG"), 3) == 0


def test_the_groups_are_read_back(tmp_path: Path) -> None:
    images = [i * 7 % 11 for i in range(200)]
    keys = keys_of([(image, "it", ((number, 0, 5, 5),)) for number, image in enumerate(images)])
    assert write_rounds(tmp_path, keys, 4) == len(groups_of(images, 4))
    rounds = Rounds(tmp_path)
    assert [rounds[i] for i in range(len(groups_of(images, 4)))] == groups_of(images, 4)


def test_names_of_images_differ() -> None:
    keys = {image_key(f"{i}.jpg".encode()) for i in range(2000)}
    assert len(keys) == 2000
    assert all(0 <= key < 2**64 for key in keys)


def test_an_image_that_a_question_mentions_stays_in_words() -> None:
    def one(question: str) -> tuple[Rendering, ...]:
        return (Rendering(turns=(Turn(role="human", text=question), Turn(role="gpt", text="<image> yes"))),)

    (joined,) = join_rounds([one("<image>\nFirst?"), one("<image>\nSecond?"), one("What is in <image>, at left?")])
    assert [turn.text for turn in joined.turns] == [
        *("<image>\nFirst?", "<image> yes"),
        *("Second?", "<image> yes"),
        *("What is in the picture, at left?", "<image> yes"),
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """gRefCOCO, RefCOCO and Visual Genome on three images, their expressions mixed up."""
    numbers = (7, 8, 9)
    for number in numbers:
        Image.new("RGB", (200, 100), (number, 0, 0)).save(tmp_path / f"{number}.jpg")
    boxes = [box(10 * number + n, number, bbox=[n * 20, 5 * n, 30, 40]) for number in numbers for n in range(5)]
    ones = [ref(10 * n + k, f"thing {k} of {n}", f"it, {k}", image_id=n) for k in range(5) for n in numbers[: k + 1]]
    many = [
        ref([10 * n + k for k in range(1, most)], f"{most} of {n}", image_id=n) for most in (2, 3, 5) for n in numbers
    ]
    none = [ref([-1], f"a zebra {n}", image_id=n, no_target=True) for n in numbers]
    regions = [
        {"x": 5 * k, "y": 5, "width": 30, "height": 40, "phrase": f"region {k % 4}"} for k in range(6)
    ]  # two phrases have two boxes
    files = {
        "refs(unc).p": pickle.dumps(ones, 2),
        "grefs(unc).json": [{"no_target": False, **item} for item in many + none],
        "instances.json": coco([picture(number) for number in numbers], boxes),
        "region_descriptions.json": [{"id": number, "regions": regions} for number in numbers],
        "image_data.json": [
            {"image_id": number, "width": 200, "height": 100, "url": f"http://x/VG_100K/{number}.jpg"}
            for number in numbers
        ],
    }
    write(tmp_path, files)
    return tmp_path


FILES = ["VG_gref & grefs(unc).json", "VG_ref & refs(unc).p", "REG_ref & refs(unc).p"]
FILES += ["REG_vg & region_descriptions.json", "VG_vg & region_descriptions.json"]


def freeze(data: Path, prep: Prep, rounds: int, *options: str) -> Path:
    """The set of all of these sources with so many rounds."""
    (data / f"m{rounds}.txt").write_text("".join(f"{line} & . & rounds={rounds}\n" for line in FILES))
    out = data / f"set{rounds}"
    built = prep("build", "--manifest", data / f"m{rounds}.txt", "--data-root", data, "--out", out, *options)
    assert built.returncode == 0, built.stderr
    return out


def samples(out: Path) -> dict[str, Sample]:
    frozen = open_set(out)
    return {sample.key: sample for sample in map(frozen.__getitem__, range(len(frozen)))}


def texts(sample: Sample) -> list[list[str]]:
    """Return question and answer of each variant, alternating."""
    return [[turn.text for turn in rendering.turns] for rendering in sample.renderings]


def answer_of(sample: Sample) -> tuple[str, ...]:
    """The boxes that a question of VG is about, or its phrase if there are none; of REG the box and the phrase."""
    question, answer = texts(sample)[0]
    boxes = re.search(r"\[[0-9.].*\]", question if sample.task == "REG" else answer)
    return (boxes[0] if boxes else question, *([answer] if sample.task == "REG" else []))


def without_image(question: str) -> str:
    """The question as it is put when the image has been shown: some wordings speak of it in mid-sentence."""
    assert question.count("<image>") <= 1
    return question.removeprefix("<image>\n").replace("<image>", "the picture")


def boxes_in(answers: list[str]) -> int:
    return sum(len(re.findall(r"\[[0-9.]+,[0-9.]+,[0-9.]+,[0-9.]+\]", answer)) for answer in answers)


@pytest.mark.parametrize("rounds", [2, 4, 1000])
def test_questions_and_answers_are_those_of_samples_of_their_own(
    data: Path, prep: Prep, lock_of: LockOf, rounds: int
) -> None:
    options = ("--variants", "3", "--samples-per-shard", "7")
    alone = samples(freeze(data, prep, 1, *options))
    out = freeze(data, prep, rounds, *options)
    together = samples(out)
    by_source = Counter(key.rpartition("-")[0] for key in alone)
    assert by_source == {"VG_gref": 12, "VG_ref": 24, "REG_ref": 24, "REG_vg": 18, "VG_vg": 12}
    for tag, count in by_source.items():
        questions = [alone[f"{tag}-{index:09d}"] for index in range(count)]
        groups = groups_of([sample.image for sample in questions], rounds, list(map(answer_of, questions)))
        assert sorted(key for key in together if key.startswith(f"{tag}-")) == [
            f"{tag}-{index:09d}" for index in range(len(groups))
        ]
        for index, members in enumerate(groups):
            sample = together[f"{tag}-{index:09d}"]
            assert sample.image == questions[members[0]].image
            expected = []
            for variants in zip(*(texts(questions[member]) for member in members), strict=True):
                first, *others = variants
                expected.append(first + [without_image(text) for other in others for text in other])
            assert texts(sample) == expected
    assert [(s["records"], s["samples"], s["rejected"]) for s in lock_of(out)["sources"]] == [
        (count, count, {}) for count in Counter(key.rpartition("-")[0] for key in together).values()
    ]


def test_the_index_counts_the_boxes_and_the_set_is_complete(data: Path, prep: Prep) -> None:
    out = freeze(data, prep, 4)
    verified = subprocess.run(
        [sys.executable, "-m", "griffon_shards", "verify", str(out), "--deep"], capture_output=True, text=True
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    frozen, index = open_set(out), np.load(out / "index.npy")
    for row in range(len(frozen)):
        turns = texts(frozen[row])[0]
        answers = turns[1::2]
        assert sum(text.count("<image>") for text in turns[::2]) == 1
        # Of REG each question has a box; of VG the answers have theirs, and `None` has none.
        expected = len(answers) if frozen[row].task == "REG" else boxes_in(answers)
        assert index["boxes"][row] == expected
        assert index["text_chars"][row] == sum(map(len, turns))
    assert index["boxes"].max() > 4


def test_bad_members_are_skipped_and_bad_groups_rejected(data: Path, prep: Prep, lock_of: LockOf) -> None:
    refs = [
        *(ref(70, "good", image_id=7), ref(99, "no such box", image_id=7), ref(71, "good too", image_id=7)),
        *(ref(72, "an <image>", image_id=7), ref(75, "outside", image_id=7)),
        *(ref(99, "bad alone", image_id=8), ref(98, "bad too", image_id=8)),
        *(ref(80, "of the next group of 8", image_id=8), ref(None, "of no picture", image_id=8)),
    ]
    boxes = [box(70), box(71, bbox=[60, 10, 30, 40]), box(72, bbox=[90, 10, 30, 40])]
    boxes += [box(75, bbox=[900, 0, 5, 5]), box(80, 8)]
    write(data, {"refs(unc).p": pickle.dumps(refs), "instances.json": coco([picture(7), picture(8)], boxes)})
    write(data, {"m.txt": "VG & refs(unc).p & . & rounds=2\nREG & refs(unc).p & . & rounds=100\n"})
    built = prep("build", "--manifest", data / "m.txt", "--data-root", data, "--out", data / "set")
    assert built.returncode == 0, built.stderr
    lock = lock_of(data / "set")
    actual = {key: texts(sample)[0][1::2] for key, sample in samples(data / "set").items()}
    answers = {key: [answer.partition("-[")[0] for answer in given] for key, given in actual.items()}
    assert answers == {
        "VG-000000000": ["good"],  # without a box that is not there
        "VG-000000001": ["good too"],  # without a second image token
        # 2: a box outside the image alone; 3: two boxes that are not there; 5: a reference that cannot be read
        "VG-000000004": ["of the next group of 8"],
        "REG-000000000": ["good", "good too", "an <image>"],  # an answer may speak of it
        "REG-000000001": ["of the next group of 8"],
    }
    vg, reg = lock["sources"]
    assert (vg["records"], vg["samples"], vg["rejected"]) == (6, 3, {"all_boxes_dropped": 1, "bad_record": 2})
    assert (reg["records"], reg["samples"], reg["rejected"]) == (3, 2, {"bad_record": 1})
    assert [shard["dropped_boxes"] for shard in lock["shards"]] == [
        {"bad_record": 1, "image_token_in_text": 1},
        {"all_boxes_dropped": 1, "bad_record": 3},
    ]
    rejects = [json.loads(line) for line in (data / "set/rejects.jsonl").read_text().splitlines()]
    assert sorted((line["source"], line["record"], line["reason"]) for line in rejects) == [
        ("REG", 2, "bad_record"),
        ("VG", 2, "all_boxes_dropped"),
        ("VG", 3, "bad_record"),
        ("VG", 5, "bad_record"),
    ]


def test_records_that_state_other_sizes_share_no_sample(data: Path, prep: Prep, lock_of: LockOf) -> None:
    """Boxes are fractions of the stated size: one that states another is left out, as it would be alone."""
    line = {"image_path": "7.jpg", "width": 200, "height": 100}
    lines = [
        {**line, "expression": "a", "bboxes": [[1, 2, 30, 40]]},
        {**line, "expression": "b", "bboxes": [[2, 2, 30, 40]], "width": 100},
        {**line, "expression": "c", "bboxes": [[3, 2, 30, 40]]},
    ]
    write(data, {"v.jsonl": "\n".join(map(json.dumps, lines)), "m.txt": "VG & v.jsonl & . & rounds=3\n"})
    built = prep("build", "--manifest", data / "m.txt", "--data-root", data, "--out", data / "set")
    assert built.returncode == 0, built.stderr
    (sample,) = samples(data / "set").values()
    assert texts(sample)[0][1::2] == ["a-[0.005,0.020,0.150,0.400]", "c-[0.015,0.020,0.150,0.400]"]
    (source,) = lock_of(data / "set")["sources"]
    assert (source["records"], source["rejected"]) == (2, {"size_mismatch": 1})


@pytest.mark.parametrize("task", ["DET", "RANDDET", "LAZY", "VISJ"])
def test_other_tasks_take_no_rounds(data: Path, task: str, prep: Prep) -> None:
    write(data, {"c.json": coco(), "l.json": [{"conversations": []}]})
    file = "l.json" if task == "LAZY" else "c.json"
    write(data, {"m.txt": f"{task} & {file} & . & rounds=2\n"})
    built = prep("build", "--manifest", data / "m.txt", "--data-root", data, "--out", data / "set")
    assert built.returncode == 2
    assert "rounds" in built.stderr
    assert len(built.stderr.splitlines()) == 1
