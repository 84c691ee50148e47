"""The questions of an evaluation and the model's answers, and their lines in `predictions.jsonl`.

A line ends with the CRC-32 of the rest of it: an evaluation that resumes does not ask again what it finds on disk.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from griffon_shards.support.errors import DataError
from griffon_shards.types import TASKS, BoxXYXY


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A round of a sample that the model is asked.

    Attributes:
        set: digest of the frozen set.
        key: the sample's key.
        source: the tag of its source.
        task: one of `TASKS`.
        round: place among the rounds of the sample's conversation, from 0.
        question: the human turn, as rendered.
        truth: the answer, as rendered.
        truth_boxes_xyxy_px: the boxes of the answer as the annotation has them, in pixels and in the answer's order.
            None in a set that has only the rendered ones.
        image: digest of the image's bytes, by which questions about one image are known; empty without an image.
        width_px: width of the image, 0 without an image.
        height_px: height of the image, 0 without an image.
    """

    set: str
    key: str
    source: str
    task: str
    round: int
    question: str
    truth: str
    truth_boxes_xyxy_px: tuple[BoxXYXY, ...] | None
    image: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A question and the model's answer.

    Attributes:
        question: the question.
        answer: the generated text.
        complete: False if generation stopped at the limit of new tokens.
        box_scores: DET and RANDDET only: a score in [0, 1] for each box that the answer parses to
            (`answers.box_scores`), in their order.
        loss: LAZY only: the summed loss of the true answer in nats, given the true turns before it.
        targets: LAZY only: the number of tokens in that sum, else 0.
    """

    question: Question
    answer: str
    complete: bool
    box_scores: tuple[float, ...]
    loss: float | None
    targets: int


def encode_prediction(prediction: Prediction, judged: Mapping[str, object]) -> bytes:
    """A line of `predictions.jsonl`, with its newline. `judged` holds the fields that follow from the prediction.

    `crc32`, the last field, is that of the line without it.
    """
    question = prediction.question
    fields = {
        "set": question.set,
        "key": question.key,
        "round": question.round,
        "source": question.source,
        "task": question.task,
        "question": question.question,
        "truth": question.truth,
        "truth_boxes_px": question.truth_boxes_xyxy_px,
        "answer": prediction.answer,
        **judged,
        "complete": prediction.complete,
        "box_scores": prediction.box_scores,
        "loss": prediction.loss,
        "targets": prediction.targets,
        "image": question.image,
        "width": question.width_px,
        "height": question.height_px,
    }
    line = orjson.dumps(fields)
    return b'%b,"crc32":%d}\n' % (line.removesuffix(b"}"), zlib.crc32(line))


def decode_prediction(line: bytes) -> Prediction:
    """Read a line of `predictions.jsonl`; the fields that were derived are ignored.

    Raises:
        DataError: the line is not one that `encode_prediction` writes.
    """
    try:
        fields: dict[str, Any] = orjson.loads(line)
        rest, _, _ = line.rpartition(b',"crc32":')
        if zlib.crc32(rest + b"}") != fields["crc32"]:
            raise ValueError("its CRC-32 is not the recorded one")
        question = Question(
            set=fields["set"],
            key=fields["key"],
            source=fields["source"],
            task=fields["task"],
            round=fields["round"],
            question=fields["question"],
            truth=fields["truth"],
            truth_boxes_xyxy_px=_boxes(fields["truth_boxes_px"]),
            image=fields["image"],
            width_px=fields["width"],
            height_px=fields["height"],
        )
        if question.task not in TASKS:
            raise ValueError(f"task {question.task!r}, expected one of {', '.join(TASKS)}")
        return Prediction(
            question=question,
            answer=fields["answer"],
            complete=fields["complete"],
            box_scores=tuple(fields["box_scores"]),
            loss=fields["loss"],
            targets=fields["targets"],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a line of predictions.jsonl: {error!r}; the line begins {line[:80]!r}") from error


def _boxes(boxes: list[list[float]] | None) -> tuple[BoxXYXY, ...] | None:
    return None if boxes is None else tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes)


def place(prediction: Prediction) -> tuple[str, str, int]:
    """Sort key of predictions: set, key and round."""
    question = prediction.question
    return question.set, question.key, question.round
