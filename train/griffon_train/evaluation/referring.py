"""Scores of VG: pointing at what an expression refers to."""

from collections.abc import Sequence

from griffon_train.evaluation.matching import SIZES, Marked, matched, reaches, samples_of, size_of
from griffon_train.evaluation.means import mean, means

THRESHOLDS = (0.5, 0.75, 0.9)


def referring_scores(marked: Sequence[Marked], convention: str) -> dict[str, object]:
    """Scores of questions of VG.

    `one_box` are the questions with one true box, as in RefCOCO: the first answered box counts. `sets` are all
    questions, those with several boxes or none included, as in gRefCOCO. `absent` are the questions without a true box,
    `present` the others.
    """
    one_box = [item for item in marked if len(item.truth) == 1]
    exact = {"exact": [float(item.exact(0.5, convention)) for item in marked]}
    absent = [item for item in marked if not item.truth]
    present = [item for item in marked if item.truth]
    n_acc = [float(item.parsed.unparsed is None and not item.parsed.boxes) for item in absent]
    t_acc = [float(bool(item.parsed.boxes)) for item in present]
    by_size = {size: [item for item in one_box if _true_size(item) == size] for size in SIZES}
    return {
        "questions": len(marked),
        "one_box": {
            **_pointing(one_box, convention),
            "several_answered": sum(len(item.parsed.boxes) > 1 for item in one_box),
            "by_size": {size: _pointing(items, convention) for size, items in by_size.items()},
        },
        "sets": {"questions": len(marked), **means(exact, samples_of(marked))},
        "absent": {"questions": len(absent), "n_acc": mean(n_acc)},
        "present": {"questions": len(present), "t_acc": mean(t_acc)},
    }


def first_box_iou(item: Marked) -> float:
    """IoU of the first answered box with the true one; 0 without an answered box."""
    answered = [box_xyxy_px for _, box_xyxy_px in item.answered[:1]]
    return max((pair.iou for pair in matched(answered, [item.truth[0][1]])), default=0.0)


def _true_size(item: Marked) -> str:
    return size_of(item.truth[0][1])


def _pointing(items: Sequence[Marked], convention: str) -> dict[str, object]:
    ious = [first_box_iou(item) for item in items]
    figures: dict[str, list[float]] = {
        f"accuracy@{threshold}": [float(reaches(value, threshold, convention)) for value in ious]
        for threshold in THRESHOLDS
    }
    figures["mean_iou"] = ious
    return {"questions": len(items), **means(figures, samples_of(items))}
