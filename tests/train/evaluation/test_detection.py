"""Scores of DET and RANDDET: pycocotools is given what was answered, and the rest is counted by hand."""

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from griffon_shards.grammar import checked_box, format_answer
from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.detection import average_precision, coco_results, coco_truth, detection_scores
from griffon_train.evaluation.matching import Marked, iou, mark
from griffon_train.evaluation.predictions import Prediction

from .made_up import CAT, DOG, FAR, jittered, predicted, random_box

COCO_INSTANCES = Path(__file__).parents[4] / "shared/data/real/coco/instances.json"
Items = Sequence[tuple[str, BoxXYXY]]
NAMES = ("cat", "dog", "red cow")


def detected(truth: Items, answer: Items, scores: Sequence[float] | None = None, key: str = "k") -> Prediction:
    return predicted("DET", format_answer(truth, "text"), format_answer(answer, "text"), key=key, scores=scores)


def scores(*predictions: Prediction) -> dict[str, Any]:
    return detection_scores([mark(prediction) for prediction in predictions], "gt")


def ap_by_hand(marked: Sequence[Marked], threshold: float) -> float:
    """COCO's AP at one threshold: precision at 101 recalls, made monotone, mean over categories."""
    aps = []
    for name in sorted({label for item in marked for label, _ in item.truth}):
        ranked, true_boxes = [], 0
        for item in marked:
            truth = [box for label, box in item.truth if label == name]
            true_boxes += len(truth)
            free = set(range(len(truth)))
            boxes = zip(item.answered, item.prediction.box_scores, strict=True)
            scored = [(score, box) for (label, box), score in boxes if label == name]
            for score, box in sorted(scored, key=lambda pair: -pair[0]):
                best = max(free, key=lambda place: iou(box, truth[place]), default=None)
                right = best is not None and iou(box, truth[best]) >= threshold
                if right:
                    free.discard(best)
                ranked.append((score, right))
        ranked.sort(key=lambda pair: -pair[0])
        hits = np.cumsum([right for _, right in ranked])
        precision, recall = hits / np.arange(1, len(ranked) + 1), hits / true_boxes
        aps.append(np.mean([max(precision[recall >= level], default=0.0) for level in np.linspace(0, 1, 101)]))
    return float(np.mean(aps))


def test_boxes_of_the_annotation_are_the_truth_of_average_precision() -> None:
    """A perfect answer for a box of a few pixels is not perfect at COCO's highest thresholds."""
    truth, exact = "cat-[0.100,0.100,0.120,0.125]", (64.2, 47.8, 77.1, 60.2)
    item = mark(predicted("DET", truth, truth, exact=[exact]))
    x1, y1, x2, y2 = exact
    assert coco_truth([item])["annotations"][0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]
    assert scores(predicted("DET", truth, truth))["coco"]["ap_small"] == pytest.approx(1.0)
    assert 0.9 < iou(item.answered[0][1], exact) < 0.95  # right at all ten thresholds but the last
    assert scores(item.prediction)["coco"]["ap_small"] == pytest.approx(0.9)


def many() -> list[Prediction]:
    """Predictions with right, shifted, missing, misnamed and invented boxes, and distinct scores."""
    draws = random.Random(0)
    predictions = []
    for key in range(40):
        truth = sorted((draws.choice(NAMES), random_box(draws)) for _ in range(draws.randint(1, 5)))
        answer = [(name, jittered(box, draws, 0.12)) for name, box in truth if draws.random() < 0.8]
        answer += [(draws.choice(NAMES), random_box(draws)) for _ in range(draws.randint(0, 2))]
        predictions.append(detected(truth, answer, [draws.random() for _ in answer], f"{key:03}"))
    return predictions


def test_ap_is_that_of_an_implementation_of_its_own() -> None:
    marked = [mark(prediction) for prediction in many()]
    found = detection_scores(marked, "gt")["coco"]
    assert isinstance(found, dict)
    assert 0.1 < found["ap"] < found["ap50"] < 0.9
    assert found["ap50"] == pytest.approx(ap_by_hand(marked, 0.5), abs=1e-9)
    assert found["ap75"] == pytest.approx(ap_by_hand(marked, 0.75), abs=1e-9)
    levels = [ap_by_hand(marked, 0.5 + 0.05 * step) for step in range(10)]
    assert found["ap"] == pytest.approx(np.mean(levels), abs=1e-9)


def test_the_json_files_give_pycocotools_the_same_ap(tmp_path: Path) -> None:
    marked = [mark(prediction) for prediction in many()]
    (tmp_path / "truth.json").write_text(json.dumps(coco_truth(marked)))
    (tmp_path / "results.json").write_text(json.dumps(coco_results(marked)))
    truth = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    coco = detection_scores(marked, "gt")["coco"]
    assert isinstance(coco, dict)
    assert list(coco.values()) == pytest.approx(list(evaluation.stats[:6]))


@pytest.mark.skipif(not COCO_INSTANCES.exists(), reason="real data are not at hand")
def test_ap50_of_rendered_instances_is_that_of_pycocotools_on_the_annotation() -> None:
    """Truth in pixels, as published, against that of three decimals."""
    data = json.loads(COCO_INSTANCES.read_text())
    images = {image["id"]: image for image in data["images"]}
    names = {category["id"]: category["name"] for category in data["categories"]}
    draws = random.Random(0)
    published: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    predictions = []
    for image_id, image in images.items():
        width, height = image["width"], image["height"]
        truth, answer = [], []
        for annotation in (item for item in data["annotations"] if item["image_id"] == image_id):
            x, y, box_width, box_height = annotation["bbox"]
            true = checked_box((x, y, x + box_width, y + box_height), width, height)
            if annotation["iscrowd"] or isinstance(true, str):
                continue
            published.append({**annotation, "area": box_width * box_height})
            category_id = annotation["category_id"] if draws.random() < 0.8 else 1
            x1, y1, x2, y2 = box = jittered(true, draws, 0.2)
            bbox = [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]
            score = draws.random()
            results.append({"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score})
            truth.append((names[annotation["category_id"]], true))
            answer.append((names[category_id], box, score))
        asked = detected(truth, [item[:2] for item in answer], [item[2] for item in answer], f"{image_id:012}")
        question = dataclasses.replace(asked.question, width_px=width, height_px=height)
        predictions.append(dataclasses.replace(asked, question=question))
    annotation_file = COCO()
    annotation_file.dataset = {**data, "annotations": published}
    annotation_file.createIndex()
    evaluation = COCOeval(annotation_file, annotation_file.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.5 < evaluation.stats[1] < 0.9
    coco = scores(*predictions)["coco"]
    assert coco["ap50"] == pytest.approx(evaluation.stats[1], abs=0.001)
    assert coco["ap"] == pytest.approx(evaluation.stats[0], abs=0.02)  # small boxes at high IoU


PUBLISHED_TRUTH = {
    42: [(4, (214.15, 41.29, 562.41, 285.07))],
    73: [(2, (13.00, 22.75, 548.98, 632.42)), (2, (1.66, 3.32, 270.26, 275.23))],
    74: [
        (4, (61.87, 276.25, 358.29, 379.43)),
        (1, (2.75, 3.66, 162.15, 316.06)),
        (0, (295.55, 93.96, 313.97, 152.79)),
        (0, (326.94, 97.05, 340.49, 122.98)),
        (0, (356.62, 95.47, 372.33, 147.55)),
        (0, (462.08, 105.09, 493.74, 146.99)),
        (0, (277.11, 103.84, 292.44, 150.72)),
    ],
    133: [(5, (13.99, 2.87, 640.00, 421.52))],
}
PUBLISHED_RESULTS = {
    42: [(4, (258.15, 41.29, 606.41, 285.07), 0.236)],
    73: [(3, (61.00, 22.75, 565.00, 632.42), 0.318), (2, (12.66, 3.32, 281.26, 275.23), 0.726)],
    74: [
        (4, (87.87, 276.25, 384.29, 379.43), 0.546),
        (1, (0.00, 3.66, 142.15, 316.06), 0.3),
        (0, (296.55, 93.96, 314.97, 152.79), 0.407),
        (0, (328.94, 97.05, 342.49, 122.98), 0.611),
        (0, (356.62, 95.47, 372.33, 147.55), 0.335),
        (0, (464.08, 105.09, 495.74, 146.99), 0.805),
        (0, (276.11, 103.84, 291.44, 150.72), 0.953),
    ],
    133: [(5, (0.00, 2.87, 601.00, 421.52), 0.699)],
}


def test_the_published_figures_of_cocos_own_example() -> None:
    """Four images of `instances_val2014_fakebbox100_results.json`, which COCO's API is released with.

    torchmetrics checks its own AP against these figures, which it computed with pycocotools.
    """

    def xywh(box: BoxXYXY) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations: list[dict[str, object]] = []
    for image_id, boxes in PUBLISHED_TRUTH.items():
        for category, box in boxes:
            x, y, width, height = xywh(box)
            named = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category + 1, "iscrowd": 0}
            annotations.append({**named, "bbox": [x, y, width, height], "area": width * height})
    truth: dict[str, list[dict[str, object]]] = {
        "images": [{"id": image_id} for image_id in PUBLISHED_TRUTH],
        "annotations": annotations,
        "categories": [{"id": number} for number in range(1, 7)],
    }
    results: list[dict[str, object]] = [
        {"image_id": image_id, "category_id": category + 1, "bbox": xywh(box), "score": score}
        for image_id, boxes in PUBLISHED_RESULTS.items()
        for category, box, score in boxes
    ]
    figures = average_precision(truth, results)
    assert {name: round(value or 0.0, 3) for name, value in figures.items()} == {
        "ap": 0.706,
        "ap50": 0.901,
        "ap75": 0.846,
        "ap_small": 0.689,
        "ap_medium": 0.8,
        "ap_large": 0.701,
    }


def test_the_example_in_the_documentation_of_coco() -> None:
    """One box found at IoU 0.8 and one missed: half of the recall levels at IoU up to 0.8, none beyond."""
    found = scores(detected([("cat", CAT), ("cat", FAR)], [("cat", (0.1, 0.1, 0.42, 0.5))]))
    half = 51 / 101
    assert found["coco"]["ap50"] == found["coco"]["ap75"] == pytest.approx(half)
    assert found["coco"]["ap"] == pytest.approx(half * 7 / 10)
    assert (found["precision@0.5"], found["recall@0.5"], found["f1@0.5"]) == (1.0, 0.5, pytest.approx(2 / 3))


def test_scores_rank_boxes_and_constant_scores_do_not() -> None:
    truth, answer = [("cat", CAT)], [("cat", FAR), ("cat", CAT)]
    found = scores(detected(truth, answer, [0.1, 0.9]))
    assert (found["coco"]["ap50"], found["coco_constant"]["ap50"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert scores(detected(truth, answer, [0.9, 0.1]))["coco"]["ap50"] == pytest.approx(0.5)
    assert found["precision@0.5"] == 0.5 and found["recall@0.5"] == 1.0


@pytest.mark.parametrize(
    ("answer", "precision", "recall"),
    [
        ([("cat", CAT), ("dog", DOG)], 1.0, 1.0),
        ([("dog", CAT), ("cat", DOG)], 0.0, 0.0),
        ([("cat", CAT), ("cat", CAT), ("dog", DOG)], 2 / 3, 1.0),
        ([("cat", CAT)], 1.0, 0.5),
        ([("cat", (0.5, 0.5, 0.1, 0.1))], 0.0, 0.0),
        ([], None, 0.0),
    ],
    ids=["perfect", "swapped", "duplicated", "half", "inverted", "none"],
)
def test_precision_and_recall(answer: Items, precision: float | None, recall: float) -> None:
    found = scores(detected([("cat", CAT), ("dog", DOG)], answer))
    assert (found["precision@0.5"], found["recall@0.5"]) == (precision, recall)
    assert found["coco"]["ap50"] == pytest.approx(recall if precision else 0.0, abs=0.01)


def test_wrong_boxes_are_counted_by_kind() -> None:
    near = (0.1, 0.1, 0.5, 0.52)
    answer = [("cat", CAT), ("cat", near), ("cat", FAR), ("cat", CAT), ("dog", DOG), ("Red cow", FAR), ("red", FAR)]
    found = scores(detected([("cat", CAT)], [*answer, ("zebra", FAR), ("re", FAR)]))
    assert found["duplicates"] == 2
    assert found["absent_categories"] == 3  # dog, red cow, and "red", which the question has as a word
    assert found["unknown_names"] == 2
    assert found["answered_boxes"] == 9 and found["true_boxes"] == 1


@pytest.mark.parametrize("answer", ["", "a cat", "cat-[0.1,0.1", "cat-[64,48,320,240]"])
def test_an_unparsed_answer_finds_nothing(answer: str) -> None:
    truth = "cat-[0.100,0.100,0.500,0.500]"
    found = scores(predicted("DET", truth, answer), predicted("DET", truth, truth, key="l"))
    assert found["recall@0.5"] == 0.5 and found["answered_boxes"] == 1
    assert found["coco"]["ap50"] == pytest.approx(51 / 101)


def test_the_json_files_name_images_and_categories_as_the_set_does() -> None:
    first = detected([("Red cow", CAT), ("dog", DOG)], [("red cow", (0.5, 0.6, 0.1, 0.2)), ("zebra", CAT)])
    second = predicted("DET", "red cow-[0.100,0.100,0.500,0.500]", "None", round=1)
    marked = [mark(first), mark(second)]
    truth = coco_truth(marked)
    assert [image["file_name"] for image in truth["images"]] == ["k", "k#1"]
    assert truth["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "Red cow"}]
    assert [annotation["category_id"] for annotation in truth["annotations"]] == [2, 1, 2]
    assert truth["annotations"][0]["bbox"] == [64, 48, 256, 192]
    assert coco_results(marked) == [{"image_id": 1, "category_id": 2, "bbox": [320, 288, 0, 0], "score": 0.5}]


def test_questions_without_boxes_have_no_ap() -> None:
    nothing = scores(predicted("RANDDET", "None", "None"))
    assert nothing["coco"]["ap"] is nothing["precision@0.5"] is nothing["recall@0.5"] is nothing["f1@0.5"] is None
    assert scores()["coco"]["ap"] is None
    invented = scores(predicted("RANDDET", "None", "dog-[0.100,0.100,0.500,0.500]"))
    assert (invented["precision@0.5"], invented["absent_categories"]) == (0.0, 1)


def test_a_box_without_a_score_is_an_error() -> None:
    with pytest.raises(DataError, match="k, round 0: 1 scores for 2 answered boxes"):
        scores(detected([("cat", CAT)], [("cat", CAT), ("cat", FAR)], [0.5]))
