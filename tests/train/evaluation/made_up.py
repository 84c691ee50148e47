"""Predictions with known scores."""

import random
from collections.abc import Sequence

from griffon_shards.grammar import format_answer, round_box
from griffon_shards.types import BoxXYXY
from griffon_train.evaluation.answers import parse
from griffon_train.evaluation.matching import NAMED_TASKS
from griffon_train.evaluation.predictions import Prediction, Question

WIDTH_PX, HEIGHT_PX = 640, 480
CAT, DOG, FAR = (0.1, 0.1, 0.5, 0.5), (0.3, 0.2, 0.9, 0.8), (0.85, 0.85, 0.95, 0.95)


def predicted(
    task: str,
    truth: str,
    answer: str,
    *,
    key: str = "k",
    round: int = 0,
    question: str = "Find cat, dog, and red cow.",
    source: str = "",
    complete: bool = True,
    scores: Sequence[float] | None = None,
    loss: float | None = None,
    targets: int = 0,
    exact: Sequence[BoxXYXY] | None = None,
    image: str = "0123456789abcdef",
) -> Prediction:
    """A prediction about an image of 640x480 pixels; `exact` are the true boxes in pixels.

    By default each box of DET and RANDDET has the score 0.5.
    """
    if scores is None and task in NAMED_TASKS:
        scores = [0.5] * len(parse(answer, task, complete=complete).boxes)
    return Prediction(
        question=Question(
            set="s",
            key=key,
            source=source or f"{task}_made_up",
            task=task,
            round=round,
            question=question,
            truth=truth,
            truth_boxes_xyxy_px=None if exact is None else tuple(exact),
            image=image,
            width_px=WIDTH_PX,
            height_px=HEIGHT_PX,
        ),
        answer=answer,
        complete=complete,
        box_scores=tuple(scores or ()),
        loss=loss,
        targets=targets,
    )


def pointed(truth: Sequence[BoxXYXY], answer: Sequence[BoxXYXY], key: str, style: str = "text") -> Prediction:
    """A prediction of VG."""
    return predicted(
        "VG", *(format_answer([("it", box) for box in boxes], style) for boxes in (truth, answer)), key=key
    )


def random_box(draws: random.Random) -> BoxXYXY:
    """A box of thousandths with an area."""
    x1, x2 = sorted(draws.sample(range(1001), 2))
    y1, y2 = sorted(draws.sample(range(1001), 2))
    return x1 / 1000, y1 / 1000, x2 / 1000, y2 / 1000


def jittered(box_xyxy: BoxXYXY, draws: random.Random, spread: float) -> BoxXYXY:
    """The box with each corner moved by up to a share of its sides."""
    x1, y1, x2, y2 = box_xyxy
    width, height = x2 - x1, y2 - y1
    x1, x2 = (x + draws.uniform(-spread, spread) * width for x in (x1, x2))
    y1, y2 = (y + draws.uniform(-spread, spread) * height for y in (y1, y2))
    return round_box((x1, y1, x2, y2), 1, 1)
