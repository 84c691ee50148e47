"""The derived fields of a prediction: its boxes in pixels, their IoU, and whether it is right."""

from griffon_shards.grammar import ANSWERED_WITH_BOXES
from griffon_train.evaluation.matching import Marked, mark, reaches
from griffon_train.evaluation.predictions import Prediction
from griffon_train.evaluation.referring import first_box_iou
from griffon_train.evaluation.text import is_exact, is_short


def judged(prediction: Prediction, convention: str) -> dict[str, object]:
    """The derived fields of a line of `predictions.jsonl`.

    - `boxes_px`: the answered boxes (x1, y1, x2, y2) in pixels.
    - `iou`: VG with one true box: IoU of the first answered box. Otherwise the mean IoU of the true boxes with their
      matches; None without true boxes.
    - `right`: VG with one true box: the first answered box reaches IoU 0.5. Other answers with boxes: the set is
      exactly the true one at IoU 0.5. REG and short answers of LAZY: exact match. Longer answers of LAZY: None.
    - `unparsed`: a reason of `answers.UNPARSED_REASONS`, or None.

    Raises:
        DataError: the true answer is not of the answer grammar.
    """
    question = prediction.question
    if question.task not in ANSWERED_WITH_BOXES:
        scored = question.task == "REG" or is_short(prediction)
        return {"boxes_px": [], "iou": None, "right": is_exact(prediction) if scored else None, "unparsed": None}
    item = mark(prediction)
    points_at_one = question.task == "VG" and len(item.truth) == 1
    value = first_box_iou(item) if points_at_one else _mean_iou(item)
    right = reaches(value or 0.0, 0.5, convention) if points_at_one else item.exact(0.5, convention)
    boxes_px = [box_xyxy_px for _, box_xyxy_px in item.answered]
    return {"boxes_px": boxes_px, "iou": value, "right": right, "unparsed": item.parsed.unparsed}


def _mean_iou(item: Marked) -> float | None:
    """The mean IoU of the true boxes with their matches; 0 for a true box without one, None without true boxes."""
    return sum(pair.iou for pair in item.pairs) / len(item.truth) if item.truth else None
