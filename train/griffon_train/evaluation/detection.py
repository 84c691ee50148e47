"""Scores of DET and RANDDET: COCO's average precision, and precision, recall and F1 without scores."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.matching import Marked, area, iou, name_key, reaches

CocoTruth = dict[str, list[dict[str, object]]]
CocoResults = list[dict[str, object]]
_AP_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
"""In the order of pycocotools' summary."""

_DUPLICATE_IOU = 0.5


def detection_scores(marked: Sequence[Marked], convention: str) -> dict[str, object]:
    """Scores of questions of one task of `matching.NAMED_TASKS`.

    `coco` ranks boxes by the probability of their tokens, `coco_constant` gives all of them the same score. An unparsed
    answer has no boxes.

    Raises:
        DataError: a prediction has another number of scores than boxes.
    """
    truth, results = coco_truth(marked), coco_results(marked)
    return {
        "questions": len(marked),
        "true_boxes": sum(len(item.truth) for item in marked),
        "answered_boxes": sum(len(item.parsed.boxes) for item in marked),
        "coco": average_precision(truth, results),
        "coco_constant": average_precision(truth, [{**result, "score": 1.0} for result in results]),
        **_scores_without_ranking(marked, convention),
        **_wrong_boxes(marked, convention),
    }


def coco_truth(marked: Sequence[Marked]) -> CocoTruth:
    """The questions in the layout of COCO's instances. Each is an image of its own, named `KEY` or `KEY#ROUND`."""
    category_ids = _category_ids(marked)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id, item in enumerate(marked, start=1):
        question = item.prediction.question
        name = question.key if question.round == 0 else f"{question.key}#{question.round}"
        size = {"width": question.width_px, "height": question.height_px}
        images.append({"id": image_id, "file_name": name, **size})
        for label, box_xyxy_px in item.truth:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # pycocotools takes 0 for no match
                    "image_id": image_id,
                    "category_id": category_ids[name_key(label)],
                    "bbox": _xywh(box_xyxy_px),
                    "area": area(box_xyxy_px),
                    "iscrowd": 0,
                }
            )
    spellings = {
        name_key(label): label for label in sorted((label for item in marked for label, _ in item.truth), reverse=True)
    }
    categories: list[dict[str, object]] = [
        {"id": number, "name": spellings[key]} for key, number in category_ids.items()
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_results(marked: Sequence[Marked]) -> CocoResults:
    """The answered boxes in the layout of COCO's results, with the ids of `coco_truth`.

    Boxes whose name is in no true answer are left out: they have no category.

    Raises:
        DataError: a prediction has another number of scores than boxes.
    """
    category_ids = _category_ids(marked)
    results: CocoResults = []
    for image_id, item in enumerate(marked, start=1):
        question, scores = item.prediction.question, item.prediction.box_scores
        if len(scores) != len(item.parsed.boxes):
            raise DataError(
                f"{question.key}, round {question.round}: {len(scores)} scores for {len(item.parsed.boxes)} answered "
                "boxes; the predictions are of another version, evaluate again"
            )
        for (label, box_xyxy_px), score in zip(item.answered, scores, strict=True):
            category_id = category_ids.get(name_key(label))
            if category_id is not None:
                bbox = _xywh(box_xyxy_px)
                results.append({"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score})
    return results


def average_precision(truth: CocoTruth, results: CocoResults) -> dict[str, float | None]:
    """COCO's AP, AP50, AP75 and AP by size, computed by pycocotools; None where there is no true box."""
    detections = [
        {**result, "id": number, "area": _area_of(result), "iscrowd": 0}
        for number, result in enumerate(results, start=1)
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(_coco(truth), _coco({**truth, "annotations": detections}), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats[: len(_AP_FIGURES)]]
    return {name: value if value >= 0 else None for name, value in zip(_AP_FIGURES, values, strict=True)}


def _scores_without_ranking(marked: Sequence[Marked], convention: str) -> dict[str, float | None]:
    answered = sum(len(item.parsed.boxes) for item in marked)
    true = sum(len(item.truth) for item in marked)
    scores: dict[str, float | None] = {}
    for threshold in (0.5, 0.75):
        hits = sum(item.hits(threshold, convention) for item in marked)
        scores[f"precision@{threshold}"] = hits / answered if answered else None
        scores[f"recall@{threshold}"] = hits / true if true else None
        scores[f"f1@{threshold}"] = 2 * hits / (answered + true) if answered + true else None
    return scores


def _wrong_boxes(marked: Sequence[Marked], convention: str) -> dict[str, int]:
    """Counts of boxes: of names not asked for, of absent categories, and of objects that another box has matched."""
    unknown = absent = duplicates = 0
    for item in marked:
        true_names = {name_key(label) for label, _ in item.truth}
        hit = {pair.answered for pair in item.pairs if reaches(pair.iou, _DUPLICATE_IOU, convention)}
        for place, (label, box_xyxy_px) in enumerate(item.answered):
            if name_key(label) not in true_names:
                is_asked = _is_asked(label, item.prediction.question.question)
                absent += is_asked
                unknown += not is_asked
            elif place not in hit:
                duplicates += _on_a_true_box(label, box_xyxy_px, item, convention)
    return {"unknown_names": unknown, "absent_categories": absent, "duplicates": duplicates}


def _on_a_true_box(label: str, box_xyxy_px: BoxXYXY, item: Marked, convention: str) -> bool:
    """Whether a box lies on a true box of its name. The caller knows that another answered box has matched that one."""
    return any(
        reaches(iou(box_xyxy_px, true_xyxy_px), _DUPLICATE_IOU, convention)
        for name, true_xyxy_px in item.truth
        if name_key(name) == name_key(label)
    )


def _is_asked(label: str, question: str) -> bool:
    """Whether a question has the name between characters that are not of words."""
    name = name_key(label)
    return bool(name) and bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", name_key(question)))


def _category_ids(marked: Sequence[Marked]) -> dict[str, int]:
    names = sorted({name_key(label) for item in marked for label, _ in item.truth})
    return {name: number for number, name in enumerate(names, start=1)}


def _coco(dataset: CocoTruth) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _xywh(box_xyxy_px: BoxXYXY) -> list[float]:
    """COCO's box; an inverted one has no width or height."""
    x1, y1, x2, y2 = box_xyxy_px
    return [x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1)]


def _area_of(result: dict[str, object]) -> float:
    bbox = result["bbox"]
    assert isinstance(bbox, list)
    return float(bbox[2] * bbox[3])
