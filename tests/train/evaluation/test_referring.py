"""Scores of VG, against the same figures computed in the plainest way."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from griffon_shards.grammar import round_box
from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.matching import mark
from griffon_train.evaluation.predictions import Prediction, decode_prediction, encode_prediction
from griffon_train.evaluation.referring import referring_scores

from .made_up import CAT, DOG, FAR, HEIGHT_PX, WIDTH_PX, jittered, pointed, predicted, random_box

REFCOCO = Path(__file__).parents[4] / "shared/data/real/refcoco/instances.json"


def scores(predictions: list[Prediction], convention: str = "gt") -> dict[str, dict[str, object]]:
    return referring_scores([mark(prediction) for prediction in predictions], convention)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "accuracy", "mean_iou"),
    [
        ([CAT], 1.0, 1.0),
        ([CAT, FAR], 1.0, 1.0),
        ([FAR, CAT], 0.0, 0.0),
        ([CAT, CAT], 1.0, 1.0),
        ([(0.1, 0.1, 0.3, 0.5)], 0.0, 0.5),
        ([(0.2, 0.1, 0.6, 0.5)], 1.0, 0.6),
        ([(0.5, 0.5, 0.1, 0.1)], 0.0, 0.0),
        ([FAR], 0.0, 0.0),
        ([], 0.0, 0.0),
    ],
    ids=["perfect", "two", "wrong first", "repeated", "half", "shifted", "inverted", "elsewhere", "none"],
)
@pytest.mark.parametrize("style", ["text", "bin"])
def test_one_box_is_scored_by_the_first_answered(
    answer: list[BoxXYXY], accuracy: float, mean_iou: float, style: str
) -> None:
    one_box = scores([pointed([CAT], answer, "k", style)])["one_box"]
    assert (one_box["accuracy@0.5"], one_box["mean_iou"]) == (accuracy, pytest.approx(mean_iou))
    assert one_box["several_answered"] == (len(answer) > 1)


def test_answers_that_name_no_box_are_wrong() -> None:
    for answer, complete in (("", True), ("the cat", True), ("it-[0.100,0.1", False), ("it-[100,100,500,500]", True)):
        found = scores([predicted("VG", "it-[0.100,0.100,0.500,0.500]", answer, complete=complete)])
        assert (found["one_box"]["accuracy@0.5"], found["sets"]["exact"], found["present"]["t_acc"]) == (0.0, 0.0, 0.0)
        found = scores([predicted("VG", "None", answer, complete=complete)])
        assert (found["one_box"]["accuracy@0.5"], found["sets"]["exact"], found["absent"]["n_acc"]) == (None, 0.0, 0.0)


def test_the_conventions_differ_at_the_threshold() -> None:
    half = [pointed([CAT], [(0.1, 0.1, 0.3, 0.5)], "k")]
    assert scores(half, "gt")["one_box"]["accuracy@0.5"] == 0.0
    assert scores(half, "ge")["one_box"]["accuracy@0.5"] == 1.0


def test_the_truth_is_the_annotations_and_not_its_three_decimals() -> None:
    """In 640x480 pixels; the rendered truth is 64 to 83.2 and 48 to 60, and the annotation's box is larger."""
    rendered, exact = "it-[0.100,0.100,0.130,0.125]", (63.7, 47.8, 83.5, 60.2)
    for answer, accuracy_rendered, accuracy_exact in (
        ("it-[0.100,0.100,0.130,0.125]", 1.0, 1.0),  # IoU 1, and 0.938 of the annotation's
        ("it-[0.100,0.100,0.130,0.123]", 1.0, 0.0),  # IoU 0.92, and 0.86
        ("it-[0.099,0.099,0.131,0.126]", 0.0, 1.0),  # IoU 0.87, and 0.93
    ):
        for boxes, accuracy in ((None, accuracy_rendered), ([exact], accuracy_exact)):
            prediction = predicted("VG", rendered, answer, exact=boxes)
            assert scores([prediction])["one_box"]["accuracy@0.9"] == accuracy, (answer, boxes)
            line = judged(decode_prediction(encode_prediction(prediction, {})), "gt")
            assert isinstance(line["iou"], float) and (line["iou"] > 0.9) == accuracy


def test_an_iou_of_exactly_half_of_an_annotations_box_is_computed_as_half() -> None:
    half = [predicted("VG", "it-[0.100,0.100,0.500,0.500]", "it-[0.100,0.100,0.300,0.500]", exact=[(64, 48, 320, 240)])]
    assert scores(half, "gt")["one_box"]["accuracy@0.5"] == 0.0
    assert scores(half, "ge")["one_box"]["accuracy@0.5"] == 1.0


def test_true_boxes_in_pixels_are_as_many_as_the_answers() -> None:
    with pytest.raises(DataError, match="2 true boxes in pixels, and 1 in the true answer"):
        scores([predicted("VG", "it-[0.100,0.100,0.500,0.500]", "None", exact=[(64, 48, 320, 240)] * 2)])


def test_many_predictions_have_the_scores_of_brute_force() -> None:
    draws = random.Random(0)
    truths = [random_box(draws) for _ in range(60)]
    answers = [jittered(box, draws, 0.15) for box in truths]
    one_box = scores(
        [pointed([true], [box], str(key)) for key, (true, box) in enumerate(zip(truths, answers, strict=True))]
    )["one_box"]

    def painted(box: BoxXYXY) -> NDArray[np.bool_]:
        x1, y1, x2, y2 = (round(value * 1000) for value in box)
        image = np.zeros((1000, 1000), dtype=bool)
        image[y1:y2, x1:x2] = True
        return image

    pairs = [(painted(true), painted(box)) for true, box in zip(truths, answers, strict=True)]
    ious = [(true & box).sum() / (true | box).sum() for true, box in pairs]
    for threshold in (0.5, 0.75, 0.9):
        assert one_box[f"accuracy@{threshold}"] == pytest.approx(sum(value > threshold for value in ious) / len(ious))
    assert one_box["mean_iou"] == pytest.approx(sum(ious) / len(ious))
    by_size = one_box["by_size"]
    assert isinstance(by_size, dict)
    for size, low, high in (("small", 0, 32), ("medium", 32, 96), ("large", 96, 1e9)):
        of_size = [
            value
            for value, (x1, y1, x2, y2) in zip(ious, truths, strict=True)
            if low**2 <= (x2 - x1) * WIDTH_PX * (y2 - y1) * HEIGHT_PX < high**2
        ]
        assert by_size[size]["questions"] == len(of_size)
        assert by_size[size]["mean_iou"] == (pytest.approx(sum(of_size) / len(of_size)) if of_size else None)


def test_several_boxes_or_none_are_scored_as_sets() -> None:
    cases = [
        ([CAT, DOG], [DOG, CAT]),  # exact
        ([CAT, DOG], [CAT]),
        ([CAT, DOG], [CAT, DOG, FAR]),
        ([CAT], []),
        ([CAT], [CAT]),  # exact
        ([], []),  # exact
        ([], [CAT]),
        ([], [FAR, CAT]),
    ]
    found = scores([pointed(truth, answer, str(key)) for key, (truth, answer) in enumerate(cases)])
    assert found["questions"] == found["sets"]["questions"] == 8
    assert found["sets"]["exact"] == 3 / 8
    assert (found["absent"]["questions"], found["absent"]["n_acc"]) == (3, 1 / 3)
    assert (found["present"]["questions"], found["present"]["t_acc"]) == (5, 4 / 5)
    assert found["one_box"]["questions"] == 2


def test_no_questions_have_no_scores() -> None:
    found = scores([])
    assert found["one_box"]["accuracy@0.5"] is found["one_box"]["mean_iou"] is found["sets"]["exact"] is None


@pytest.mark.skipif(not REFCOCO.exists(), reason="real data are not at hand")
def test_three_decimals_of_the_truth_move_no_score_of_refcoco_by_more_than_a_tenth_of_a_point() -> None:
    data = json.loads(REFCOCO.read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    draws = random.Random(0)
    exact_ious, predictions = [], []
    for key in range(10_000):
        annotation = draws.choice(data["annotations"])
        width, height = sizes[annotation["image_id"]]
        x, y, side_x, side_y = annotation["bbox"]
        true_px = (x, y, x + side_x, y + side_y)
        spread = draws.uniform(0, 0.3)
        answer_px = [
            corner + draws.gauss(0, spread) * side for corner, side in zip(true_px, (side_x, side_y) * 2, strict=True)
        ]
        answer = round_box((answer_px[0], answer_px[1], answer_px[2], answer_px[3]), width, height)
        predictions.append(pointed([round_box(true_px, width, height)], [answer], str(key)))
        x1, y1, x2, y2 = answer[0] * width, answer[1] * height, answer[2] * width, answer[3] * height
        inside = max(0, min(x2, true_px[2]) - max(x1, x)) * max(0, min(y2, true_px[3]) - max(y1, y))
        areas = max(0, x2 - x1) * max(0, y2 - y1) + side_x * side_y
        exact_ious.append(inside / (areas - inside))
    one_box = scores(predictions)["one_box"]
    for threshold in (0.5, 0.75, 0.9):
        exact = sum(value > threshold for value in exact_ious) / len(exact_ious)
        assert 0.05 < exact < 0.95
        assert one_box[f"accuracy@{threshold}"] == pytest.approx(exact, abs=0.001)
    assert one_box["mean_iou"] == pytest.approx(sum(exact_ious) / len(exact_ious), abs=0.001)
