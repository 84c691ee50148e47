"""Compares the boxes of answers with the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from griffon_shards.grammar import ANSWERED_WITH_BOXES
from griffon_shards.support.errors import DataError
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.answers import ParsedAnswer, parse, truth_boxes
from griffon_train.evaluation.predictions import Prediction, Question

CONVENTIONS = ("gt", "ge")
"""Whether a box is right above an IoU (`gt`, as the reference counts) or from it on (`ge`)."""

NAMED_TASKS = ("DET", "RANDDET")
"""Tasks in which a box is right only under its own name. In VG the label repeats the question."""

SIZES = ("small", "medium", "large")
"""COCO's sizes of boxes: area below 32², below 96², and from 96² square pixels on."""

_SMALL_PX2, _MEDIUM_PX2 = 32**2, 96**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An answered box and the true box that it is compared with.

    Attributes:
        answered: place among the answered boxes.
        true: place among the true boxes.
        iou: their intersection over union, above 0.
    """

    answered: int
    true: int
    iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A prediction of a task that is answered with boxes, beside the truth.

    Attributes:
        prediction: the prediction.
        parsed: its answer.
        answered: labels and boxes (pixels) of the answer.
        truth: labels and boxes (pixels) of the true answer: those of the annotation if the set has them.
        pairs: each box is in at most one pair.
    """

    prediction: Prediction
    parsed: ParsedAnswer
    answered: tuple[tuple[str, BoxXYXY], ...]
    truth: tuple[tuple[str, BoxXYXY], ...]
    pairs: tuple[Pair, ...]

    def hits(self, threshold: float, convention: str) -> int:
        """The number of answered boxes that are right."""
        return sum(reaches(pair.iou, threshold, convention) for pair in self.pairs)

    def f1(self, threshold: float, convention: str) -> float:
        """F1 of the set of boxes; 1 if there are rightly none, and 0 if the answer is unparsed."""
        if self.parsed.unparsed is not None:
            return 0.0
        boxes = len(self.parsed.boxes) + len(self.truth)
        return 2 * self.hits(threshold, convention) / boxes if boxes else 1.0

    def exact(self, threshold: float, convention: str) -> bool:
        """Whether the answer is exactly the true set: F1 is 1, and the answer is not cut off."""
        return self.prediction.complete and self.f1(threshold, convention) == 1.0


def mark(prediction: Prediction) -> Marked:
    """Parse an answer, and match its boxes with the true ones.

    Raises:
        DataError: the truth is not of the answer grammar, or has another number of boxes than in pixels.
    """
    question = prediction.question
    assert question.task in ANSWERED_WITH_BOXES, question.task
    parsed = parse(prediction.answer, question.task, complete=prediction.complete, question=question.question)
    truth = tuple(_truth_in_pixels(question))
    answered = tuple(
        (box.label, in_pixels(box.box_xyxy, question.width_px, question.height_px)) for box in parsed.boxes
    )
    if question.task not in NAMED_TASKS:
        pairs = matched([box for _, box in answered], [box for _, box in truth])
    else:
        pairs = _matched_by_name(answered, truth)
    return Marked(prediction=prediction, parsed=parsed, answered=answered, truth=truth, pairs=tuple(pairs))


def _truth_in_pixels(question: Question) -> list[tuple[str, BoxXYXY]]:
    """Labels and boxes of the true answer: those in pixels, or else the rendered ones."""
    rendered = truth_boxes(question.truth, question.task)
    exact = question.truth_boxes_xyxy_px
    if exact is None:
        return [(label, in_pixels(box, question.width_px, question.height_px)) for label, box in rendered]
    if len(exact) != len(rendered):
        raise DataError(
            f"{question.key}, round {question.round}: {len(exact)} true boxes in pixels, and {len(rendered)} in the "
            "true answer; evaluate again"
        )
    return [(label, box) for (label, _), box in zip(rendered, exact, strict=True)]


def name_key(name: str) -> str:
    """The name with case folded and spaces normalized, for comparing names."""
    return " ".join(name.split()).casefold()


def iou(box_xyxy: BoxXYXY, other_xyxy: BoxXYXY) -> float:
    """Intersection over union of two boxes in the same unit; 0 for boxes without an area."""
    width = min(box_xyxy[2], other_xyxy[2]) - max(box_xyxy[0], other_xyxy[0])
    height = min(box_xyxy[3], other_xyxy[3]) - max(box_xyxy[1], other_xyxy[1])
    areas = area(box_xyxy), area(other_xyxy)
    if width <= 0 or height <= 0 or 0 in areas:
        return 0.0
    return width * height / (areas[0] + areas[1] - width * height)


def area(box_xyxy: BoxXYXY) -> float:
    """Area in the square of the box's unit; 0 for an inverted box."""
    x1, y1, x2, y2 = box_xyxy
    return (x2 - x1) * (y2 - y1) if x2 > x1 and y2 > y1 else 0.0


def size_of(box_xyxy_px: BoxXYXY) -> str:
    """The size of a box, one of `SIZES`."""
    area_px2 = area(box_xyxy_px)
    return "small" if area_px2 < _SMALL_PX2 else "medium" if area_px2 < _MEDIUM_PX2 else "large"


def samples_of(marked: Sequence[Marked]) -> list[tuple[str, str]]:
    """The sample of each prediction: set and key."""
    return [(item.prediction.question.set, item.prediction.question.key) for item in marked]


def reaches(value: float, threshold: float, convention: str) -> bool:
    """Whether an IoU reaches a threshold in a convention, one of `CONVENTIONS`."""
    return value > threshold if convention == "gt" else value >= threshold


def matched(answered: Sequence[BoxXYXY], truth: Sequence[BoxXYXY]) -> list[Pair]:
    """Pair boxes of one unit, those with the highest IoU first; boxes that do not overlap stay alone.

    They are compared in whole thousandths of the unit, as far as they have three decimals, so that an IoU of exactly
    0.5 is computed as 0.5. Boxes of answers have three decimals in pixels, too, for an image's sides are whole.
    """
    answered_units, true_units = [_thousandths(box) for box in answered], [_thousandths(box) for box in truth]
    ious = [
        (iou(box, true_box), place, true_place)
        for place, box in enumerate(answered_units)
        for true_place, true_box in enumerate(true_units)
    ]
    pairs: list[Pair] = []
    taken: set[int] = set()
    taken_true: set[int] = set()
    for value, place, true_place in sorted(ious, key=lambda item: (-item[0], item[1], item[2])):
        if value > 0 and place not in taken and true_place not in taken_true:
            taken.add(place)
            taken_true.add(true_place)
            pairs.append(Pair(answered=place, true=true_place, iou=value))
    return pairs


def in_pixels(box_xyxy: BoxXYXY, width_px: int, height_px: int) -> BoxXYXY:
    """A box of fractions in pixels."""
    x1, y1, x2, y2 = _thousandths(box_xyxy)
    return x1 * width_px / 1000, y1 * height_px / 1000, x2 * width_px / 1000, y2 * height_px / 1000


def _matched_by_name(answered: Sequence[tuple[str, BoxXYXY]], truth: Sequence[tuple[str, BoxXYXY]]) -> list[Pair]:
    """Pair boxes of the same name."""
    pairs: list[Pair] = []
    for name in dict.fromkeys(name_key(label) for label, _ in truth):
        places = [place for place, (label, _) in enumerate(answered) if name_key(label) == name]
        true_places = [place for place, (label, _) in enumerate(truth) if name_key(label) == name]
        pairs += [
            Pair(answered=places[pair.answered], true=true_places[pair.true], iou=pair.iou)
            for pair in matched([answered[place][1] for place in places], [truth[place][1] for place in true_places])
        ]
    return pairs


def _thousandths(box_xyxy: BoxXYXY) -> BoxXYXY:
    """The box in thousandths of its unit; coordinates of three decimals become whole numbers."""
    x1, y1, x2, y2 = (round(value * 1000, 6) for value in box_xyxy)
    return x1, y1, x2, y2
