"""Predictions as `griffon-train evaluate` writes them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from griffon_shards import open_set
from griffon_shards.support.errors import DataError, SettingsError
from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.predictions import Prediction, Question, encode_prediction

from .conftest import View

SHIFTED = "the thing-[0.000,0.000,0.010,0.010]"


def line(root: Path, row: int, answer: str | None, place: int = 0, digest: str | None = None) -> bytes:
    """A prediction of a round of the sample in a row; None answers with the truth."""
    frozen = open_set(root)
    sample = frozen[row]
    truth = sample.turns[2 * place + 1].text
    question = Question(
        set=digest or frozen.lock.digest,
        key=sample.key,
        source=sample.key.rpartition("-")[0],
        task=sample.task,
        round=place,
        question=sample.turns[2 * place].text,
        truth=truth,
        truth_boxes_xyxy_px=sample.boxes_xyxy_px,
        image="",
        width_px=sample.width_px,
        height_px=sample.height_px,
    )
    prediction = Prediction(
        question=question,
        answer=truth if answer is None else answer,
        complete=True,
        box_scores=(),
        loss=None,
        targets=0,
    )
    return encode_prediction(prediction, judged(prediction, "gt"))


@pytest.fixture(scope="module")
def rows(frozen_set: Path) -> list[int]:
    """Four questions of VG about one thing."""
    frozen = open_set(frozen_set)
    source = frozen.rows_of_source("VG_shapes")
    return [row for row in source if len(frozen[row].boxes_xyxy_px or ()) == 1][:4]


@pytest.fixture(scope="module")
def predicted(
    frozen_set: Path, rows: Sequence[int], tmp_path_factory: pytest.TempPathFactory, open_view: Callable[..., View]
) -> View:
    """The first is right, the second wrong, the third unparsed; the fourth is not asked; one of LAZY is not scored."""
    path = tmp_path_factory.mktemp("evaluation") / "predictions.jsonl"
    lazy = open_set(frozen_set).rows_of_source("LAZY_caption")[0]
    answers = {rows[0]: None, rows[1]: SHIFTED, rows[2]: "I do not know", lazy: "A long caption of many words, unlike."}
    path.write_bytes(b"".join(line(frozen_set, row, answer) for row, answer in reversed(answers.items())))
    return open_view(frozen_set, predictions=path)


def test_verdicts_and_iou_are_filters(predicted: View, rows: list[int]) -> None:
    assert predicted.get("/api/sets")["predictions"]
    assert predicted.rows(verdict="right") == rows[:1]
    assert predicted.rows(verdict="wrong") == rows[1:2]
    assert predicted.rows(verdict="unparsed") == rows[2:3]
    assert predicted.rows(iou="0.9-") == rows[:1]
    assert sorted(predicted.rows(iou="-0.5")) == rows[1:3]


def test_the_worst_come_first(predicted: View, rows: list[int]) -> None:
    by_iou = predicted.rows(sort="iou")
    assert (sorted(by_iou[:2]), by_iou[2]) == (rows[1:3], rows[0])
    assert predicted.rows(sort="verdict")[:3] == [rows[2], rows[1], rows[0]]
    assert predicted.rows(sort="verdict", desc=1)[:3] == rows[:3]
    assert sorted(by_iou) == list(range(len(predicted.sets[0].frozen)))


def test_cards_and_pages_show_them(predicted: View, rows: list[int], frozen_set: Path) -> None:
    cards = {card["row"]: card for card in predicted.get("/api/samples", task="VG", limit=200)["samples"]}
    right, wrong, unparsed, unasked = (cards[row]["prediction"] for row in rows)
    assert (right["verdict"], wrong["verdict"], unparsed["verdict"], unasked) == ("right", "wrong", "unparsed", None)
    assert right["boxes"][0] == {
        "box": pytest.approx(cards[rows[0]]["boxes"][0]["box"], abs=1e-9),
        "label": cards[rows[0]]["boxes"][0]["label"],
    }
    assert right["iou"] > 0.9
    assert wrong["boxes"] == [{"box": pytest.approx([0, 0, 0.01, 0.01]), "label": "the thing"}]
    (shown,) = predicted.get(f"/api/samples/0/{rows[2]}")["predictions"]
    assert (shown["why"], shown["answer"], shown["boxes"]) == ("no_box", "I do not know", [])
    assert shown["truth"] == open_set(frozen_set)[rows[2]].turns[1].text
    lazy = open_set(frozen_set).rows_of_source("LAZY_caption")[0]
    assert predicted.get(f"/api/samples/0/{lazy}")["prediction"] == {"verdict": None, "iou": None, "boxes": []}


def test_a_sample_of_several_rounds_has_the_worst_verdict(
    frozen_set: Path, tmp_path: Path, open_view: Callable[..., View]
) -> None:
    frozen = open_set(frozen_set)
    row = next(row for row in range(len(frozen)) if frozen[row].task == "LAZY" and len(frozen[row].turns) > 2)
    path = tmp_path / "predictions.jsonl"
    lines = [orjson.loads(line(frozen_set, row, None, place)) for place in (1, 0)]
    for fields, right in zip(lines, (True, False), strict=True):
        fields["right"] = right
    path.write_bytes(b"".join(map(orjson.dumps, lines[:1])) + b"\n\n" + orjson.dumps(lines[1]))
    view = open_view(frozen_set, predictions=path)
    assert view.rows(verdict="wrong") == [row]
    assert view.rows(verdict="right") == []
    assert [item["round"] for item in view.get(f"/api/samples/0/{row}")["predictions"]] == [0, 1]


def test_predictions_of_another_set_are_refused(
    frozen_set: Path, rows: list[int], tmp_path: Path, open_view: Callable[..., View]
) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(line(frozen_set, rows[0], None, digest="0" * 64))
    with pytest.raises(SettingsError, match="0" * 64):
        open_view(frozen_set, predictions=path)
    path.write_bytes(path.read_bytes() + line(frozen_set, rows[1], SHIFTED))
    view = open_view(frozen_set, predictions=path)  # an evaluation of several sets has lines of each
    assert view.rows(verdict="wrong") == rows[1:2]
    assert view.rows(verdict="right") == []


@pytest.mark.parametrize(
    "change",
    [
        {"key": "VG_shapes-999999999"},
        {"key": "nobody-000000000"},
        {"key": 7},
        {"boxes_px": [[1, 2, 3]]},
        {"iou": "high"},
        {"answer": None},
        {"set": None},
    ],
)
def test_a_line_that_is_no_prediction_is_named(
    frozen_set: Path, rows: list[int], tmp_path: Path, open_view: Callable[..., View], change: dict[str, object]
) -> None:
    path = tmp_path / "predictions.jsonl"
    good = line(frozen_set, rows[0], None)
    path.write_bytes(good + orjson.dumps({**orjson.loads(good), **change}))
    with pytest.raises(DataError, match="line 2"):
        open_view(frozen_set, predictions=path)
    path.write_bytes(good + good[:50])
    with pytest.raises(DataError, match="line 2"):
        open_view(frozen_set, predictions=path)
