"""The questions of a sample: each round alone, except in a conversation, whose rounds build on each other."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from griffon_prep.cli import main
from griffon_shards.frozen_set import FrozenSet, open_set
from griffon_shards.grammar import parse_answer, round_box
from griffon_shards.sample_json import decode_sample, encode_sample
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.evaluation.questions import Asked, chosen_rows, questions_of


@pytest.fixture(scope="module")
def frozen(frozen_set: Path) -> FrozenSet:
    return open_set(frozen_set)


def asked_about(frozen: FrozenSet, task: str) -> list[list[Asked]]:
    rows = chosen_rows([frozen], tasks=[task], sources=[], limit=None)
    return [list(questions_of(frozen[row], frozen.lock.digest, set_no, row)) for set_no, row in rows]


def texts(questions: Sequence[Asked]) -> list[list[str]]:
    return [[turn.text for turn in asked.turns] for asked in questions]


def test_a_round_of_a_conversation_follows_the_true_ones_before_it(frozen: FrozenSet) -> None:
    talks = asked_about(frozen, "LAZY")
    several = next(talk for talk in talks if len(talk) > 1)
    turns = frozen[several[0].row].turns
    humans = [turn.text for turn in turns if turn.role == "human"]
    truths = [turn.text for turn in turns if turn.role == "gpt"]
    assert texts(several)[1] == [humans[0], truths[0], humans[1]]
    assert [asked.question.truth for asked in several] == truths
    assert [asked.question.round for asked in several] == list(range(len(truths)))
    for asked in (asked for talk in talks for asked in talk):
        assert asked.turns[-1].text == asked.question.question
        assert asked.answered == frozen[asked.row].turns[: len(asked.turns) + 1]
        assert asked.has_image == (frozen[asked.row].image is not None)


def test_every_other_question_is_asked_alone_and_with_its_image(frozen: FrozenSet) -> None:
    for task in ("DET", "RANDDET", "REG", "VG", "VISJ"):
        for questions in asked_about(frozen, task):
            sample = frozen[questions[0].row]
            assert len(questions) == len(sample.turns) // 2
            for asked in questions:
                (turn,) = asked.turns
                assert turn.text.count("<image>") == 1
                assert turn.text.endswith(asked.question.question)
                assert asked.has_image
                assert (asked.region_xyxy_px is not None) == (task == "VISJ")
                assert (asked.question.width_px, asked.question.height_px) == (sample.width_px, sample.height_px)


def test_later_rounds_about_an_image_show_it_too(demo_data: Path, tmp_path: Path) -> None:
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("VG_") and "rounds=" not in line and "refcoco" in line)
    (tmp_path / "manifest.txt").write_text(f"{line} & rounds=3\n", encoding="utf-8")
    arguments = ["build", "--manifest", str(tmp_path / "manifest.txt"), "--data-root", str(demo_data)]
    main([*arguments, "--out", str(tmp_path / "set"), "--workers", "1"], standalone_mode=False)
    rounds = [questions for questions in asked_about(open_set(tmp_path / "set"), "VG") if len(questions) > 1]
    assert rounds
    for questions in rounds:
        assert "<image>" not in questions[1].question.question
        assert texts(questions)[1] == [f"<image>\n{questions[1].question.question}"]
        assert all(asked.has_image for asked in questions)


def test_the_true_boxes_in_pixels_are_those_of_the_rounds_own_answer(demo_data: Path, tmp_path: Path) -> None:
    lines = (demo_data / "manifest.txt").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith("VG_grefcoco"))
    (tmp_path / "manifest.txt").write_text(f"{line} & rounds=4\n", encoding="utf-8")
    arguments = ["build", "--manifest", str(tmp_path / "manifest.txt"), "--data-root", str(demo_data)]
    main([*arguments, "--out", str(tmp_path / "set"), "--workers", "1"], standalone_mode=False)
    counts = []
    for questions in asked_about(open_set(tmp_path / "set"), "VG"):
        for question in (asked.question for asked in questions):
            boxes = question.truth_boxes_xyxy_px
            assert boxes is not None
            rounded = [round_box(box, question.width_px, question.height_px) for box in boxes]
            assert rounded == [box for _, box in parse_answer(question.truth, "VG", "text")]
            counts.append(len(boxes))
    assert {0, 1, 2} <= set(counts)


def test_questions_without_boxes_have_an_empty_list(frozen: FrozenSet) -> None:
    for task in ("LAZY", "REG"):
        for questions in asked_about(frozen, task):
            assert {asked.question.truth_boxes_xyxy_px for asked in questions} == {()}


def test_questions_about_one_image_have_its_digest(frozen: FrozenSet) -> None:
    images: dict[bytes | None, set[str]] = {}
    for row in range(len(frozen)):
        images.setdefault(frozen[row].image, set()).update(
            asked.question.image for asked in questions_of(frozen[row], frozen.lock.digest, 0, row)
        )
    digests = [digest for (digest,) in images.values()]
    assert len(set(digests)) == len(images) == 25  # those of the sample data, and none
    assert images[None] == {""}


def test_a_set_from_before_samples_had_boxes_in_pixels(frozen: FrozenSet) -> None:
    row = frozen.rows_of_source("DET_shapes").start
    old = re.sub(rb'"boxes":.*?\]\],', b"", encode_sample(frozen[row]))
    sample = decode_sample(frozen.key(row), frozen[row].image, old)
    (asked,) = questions_of(sample, frozen.lock.digest, 0, row)
    assert asked.question.truth_boxes_xyxy_px is None


def test_boxes_in_pixels_that_are_not_those_of_the_answers_are_refused(frozen: FrozenSet) -> None:
    row = frozen.rows_of_source("DET_shapes").start
    sample = frozen[row]
    damaged = replace(sample, renderings=(replace(sample.renderings[0], boxes_xyxy_px=((0.0, 0.0, 1.0, 1.0),) * 99),))
    with pytest.raises(DataError, match="has 99 boxes in pixels, and"):
        list(questions_of(damaged, frozen.lock.digest, 0, row))


def test_the_choice_of_samples(frozen: FrozenSet) -> None:
    first = frozen.rows_of_source("VG_shapes").start
    assert chosen_rows([frozen], tasks=[], sources=["VG_shapes"], limit=2) == [(0, first), (0, first + 1)]
    assert (0, first + 1) in chosen_rows([frozen], tasks=["VG"], sources=[], limit=None)
    assert len(chosen_rows([frozen], tasks=[], sources=[], limit=None)) == len(frozen)
    with pytest.raises(SettingsError, match="no set has such a source; the sources are "):
        chosen_rows([frozen], tasks=[], sources=["nothing"], limit=None)
    with pytest.raises(SettingsError, match="the sets have no samples of these tasks and sources"):
        chosen_rows([frozen], tasks=["REG"], sources=["VG_shapes"], limit=None)
