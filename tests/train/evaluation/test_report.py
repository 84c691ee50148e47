"""The figures of all tasks together, the lines of predictions, and the table."""

import dataclasses
import random

import orjson
import pytest

from griffon_shards.support.errors import DataError
from griffon_shards.types import TASKS
from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.predictions import Prediction, decode_prediction, encode_prediction
from griffon_train.evaluation.report import figures_table, metrics

from .made_up import CAT, DOG, jittered, pointed, predicted, random_box

TRUE = "cat-[0.100,0.100,0.500,0.500]"


def of_all_tasks() -> list[Prediction]:
    draws = random.Random(0)
    truths = [random_box(draws) for _ in range(50)]
    return [
        *(pointed([box], [jittered(box, draws, 0.3)], f"vg{key}") for key, box in enumerate(truths)),
        predicted("VG", "None", "none", key="absent", source="VG_absent"),
        predicted("VG", TRUE, "what?", key="unparsed", source="VG_absent"),
        predicted("DET", TRUE, f"{TRUE}&{TRUE}", key="det", scores=(0.3, 0.1)),
        predicted("DET", TRUE, f"{TRUE}&do", key="det", round=1, complete=False),
        predicted("RANDDET", "None", TRUE, key="randdet"),
        predicted("VISJ", "[0.100,0.100,0.500,0.500]", "[0.500,0.100,0.100,0.500]", key="visj"),
        predicted("REG", "the cup", "a cup", key="reg"),
        predicted("REG", "the dog", "the dog", key="reg", round=1),
        *(predicted("LAZY", "yes", "no", key=f"lazy{key}", loss=draws.random(), targets=3) for key in range(30)),
    ]


def test_the_order_of_predictions_does_not_matter() -> None:
    predictions = of_all_tasks()
    expected = orjson.dumps(metrics(predictions, "gt"))
    for seed in range(3):
        shuffled = random.Random(seed).sample(predictions, len(predictions))
        assert orjson.dumps(metrics(shuffled, "gt")) == expected
    assert (
        orjson.dumps(metrics([decode_prediction(encode_prediction(each, {})) for each in predictions], "gt"))
        == expected
    )


def test_every_task_has_its_scores_and_its_parsing() -> None:
    figures = metrics(of_all_tasks(), "gt")
    tasks, sources = figures["tasks"], figures["sources"]
    assert isinstance(tasks, dict) and isinstance(sources, dict)
    assert list(tasks) == list(TASKS)
    assert sources["VG_absent"]["questions"] + sources["VG_made_up"]["questions"] == tasks["VG"]["questions"] == 52
    assert sources["VG_absent"]["absent"]["n_acc"] == 1.0
    assert tasks["VG"]["parsing"]["unparsed_by_reason"] == {"no_box": 1}
    parsing = tasks["DET"]["parsing"]
    assert (parsing["answers"], parsing["strict"], parsing["lenient"]) == (2, 0.5, 0.5)
    assert (parsing["repeated"], parsing["cut_off"]) == (0.5, 0.5)
    assert tasks["VISJ"]["parsing"]["inverted_boxes"] == 1
    assert tasks["LAZY"]["parsing"]["cut_off"] == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_one_question_of_one_task_has_figures_and_a_table(task: str) -> None:
    for answer in ("", "None", TRUE):
        truth = {"VISJ": "[0.100,0.100,0.500,0.500]", "VG": "None"}.get(task, TRUE)
        figures = metrics([predicted(task, truth, answer)], "ge")
        orjson.dumps(figures)
        assert task in figures_table(figures)


def test_no_predictions_have_no_scores() -> None:
    assert metrics([], "gt")["tasks"] == {}
    assert "questions" in figures_table(metrics([], "gt"))


def test_the_table_shows_sources_where_a_task_has_several() -> None:
    lines = figures_table(metrics(of_all_tasks(), "gt")).splitlines()
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert ["VG", "1", "absent.n_acc", "100.0 %"] in cells
    assert ["VG_absent", "2", "sets.exact", "50.0 %", "0.0 % to 100.0 %"] in cells
    assert ["DET", "2", "50.0 %", "50.0 %", "0.0 %", "50.0 %", "50.0 %"] in cells
    assert not any("DET_made_up" in line for line in lines)


def test_a_question_counts_once() -> None:
    with pytest.raises(DataError, match="absent, round 0, is predicted twice"):
        metrics([*of_all_tasks(), predicted("VG", "None", "None", key="absent")], "gt")


def test_a_prediction_survives_its_line() -> None:
    for prediction in of_all_tasks():
        line = encode_prediction(prediction, judged(prediction, "gt"))
        assert line.endswith(b"\n") and line.count(b"\n") == 1
        assert decode_prediction(line) == prediction


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'"text"', b"3"])
def test_a_damaged_line_is_an_error(line: bytes) -> None:
    with pytest.raises(DataError, match=r"not a line of predictions\.jsonl"):
        decode_prediction(line)


def test_a_line_in_which_a_bit_flipped_is_an_error() -> None:
    line = encode_prediction(of_all_tasks()[0], {}).rstrip()
    for place in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DataError, match=r"not a line of predictions\.jsonl"):
            decode_prediction(bytes(flipped))


def test_the_line_says_whether_the_answer_is_right() -> None:
    half = (0.1, 0.1, 0.3, 0.5)
    right = judged(pointed([CAT], [half, CAT], "k"), "ge")
    assert right == {"boxes_px": [(64, 48, 192, 240), (64, 48, 320, 240)], "iou": 0.5, "right": True, "unparsed": None}
    assert judged(pointed([CAT], [half], "k"), "gt")["right"] is False
    several = judged(pointed([CAT, DOG], [CAT], "k"), "gt")
    assert (several["iou"], several["right"]) == (0.5, False)
    absent = judged(pointed([], [], "k"), "gt")
    assert (absent["iou"], absent["right"]) == (None, True)
    unparsed = judged(predicted("VG", TRUE, "[0.1]"), "gt")
    assert unparsed == {"boxes_px": [], "iou": 0.0, "right": False, "unparsed": "broken_box"}
    assert judged(predicted("REG", "a cup", "A cup."), "gt")["right"] is True
    assert judged(predicted("LAZY", "a cup of tea for you", "no"), "gt")["right"] is None
    other_task = dataclasses.replace(predicted("LAZY", "yes", "no").question, task="NONE")
    with pytest.raises(DataError, match="task 'NONE'"):
        decode_prediction(
            encode_prediction(dataclasses.replace(predicted("LAZY", "yes", "no"), question=other_task), {})
        )
