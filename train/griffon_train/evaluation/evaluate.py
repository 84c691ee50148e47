"""Asks a model the questions of frozen sets and scores the answers, on any number of ranks."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from PIL import Image

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import Sample
from griffon_train.data.images import decode
from griffon_train.distributed.process_group import ProcessGroup
from griffon_train.evaluation.answer_loss import answer_loss
from griffon_train.evaluation.answers import box_scores, parse
from griffon_train.evaluation.answers_on_disk import AnswerFile, Place, claim, finish, read_answers
from griffon_train.evaluation.generation import Answer, Generator, Prompt
from griffon_train.evaluation.judging import judged
from griffon_train.evaluation.matching import NAMED_TASKS
from griffon_train.evaluation.predictions import Prediction, encode_prediction, place
from griffon_train.evaluation.questions import Asked, questions_of
from griffon_train.evaluation.report import metrics
from griffon_train.evaluation.saved_model import LoadedModel

_log = logging.getLogger(__name__)

_LEAST_MARGIN = 16
"""Tokens that an answer may be longer than the longest true one; a quarter of that one if it is more."""

_SAY_EVERY_S = 10.0
_TALK = "LAZY"
_LIBRARIES = ("griffon-pipeline", "torch", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A model and the questions that it is asked.

    Attributes:
        loaded: the model, on the rank's device.
        weights_sha256: hash of its weights.
        sets: the frozen sets.
        rows: set number and row of each sample.
        batch: number of questions that a rank answers together; the answers do not depend on it.
        max_new_tokens: tokens after which an answer is cut off; by default somewhat more than the longest true answer.
        convention: one of `matching.CONVENTIONS`.
        out: folder for the results, or None.
    """

    loaded: LoadedModel
    weights_sha256: str
    sets: Sequence[FrozenSet]
    rows: Sequence[tuple[int, int]]
    batch: int
    max_new_tokens: int | None
    convention: str
    out: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answers, in order of set, key and round, and their scores, as `metrics.json` has them."""

    predictions: Sequence[Prediction]
    metrics: Mapping[str, Any]


def evaluate(evaluation: Evaluation, ranks: ProcessGroup) -> Result:
    """Ask every question that `out` has no answer to yet, and score all answers. Every rank calls this.

    The ranks share the questions. Nothing in the result depends on their number or on the batch size.

    Raises:
        SettingsError: `out` holds another evaluation, or a question has a region and the model no tower for it.
        DataError: a sample cannot be read.
    """
    if ranks.first:
        _warn_of_other_box_styles(evaluation)
    asked = _own_questions(evaluation, ranks)
    limit = evaluation.max_new_tokens or _longest(asked, evaluation.loaded, ranks)
    identity = _identity(evaluation, limit)
    out = evaluation.out
    with _claimed(out, identity, ranks):
        before = {} if out is None else read_answers(out)
        answers = [before[at] for at in map(_place, asked) if at in before]
        left = [each for each in asked if _place(each) not in before]
        ranks.raise_if_any(None)  # every rank has read the files before any of them writes one
        with nullcontext() if out is None else closing(AnswerFile(out, ranks.rank)) as file:
            for predictions in _answered(evaluation, left, len(answers), limit, ranks):
                answers += predictions
                if file is not None:
                    file.append(predictions)
        order = {frozen.lock.digest: number for number, frozen in enumerate(evaluation.sets)}
        predictions = [each for of_rank in ranks.gathered(answers) for each in of_rank]
        predictions.sort(key=lambda each: (order[each.question.set], *place(each)[1:]))
        figures = {**identity, **metrics(predictions, evaluation.convention)}
        if out is not None and ranks.first:
            lines = (encode_prediction(each, judged(each, evaluation.convention)) for each in predictions)
            encoded = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
            chosen = set(map(place, predictions))
            finish(out, lines, encoded, [each for at, each in before.items() if at not in chosen])
    return Result(predictions=predictions, metrics=figures)


def _warn_of_other_box_styles(evaluation: Evaluation) -> None:
    """Answers are read in any style, but questions are asked as their set writes them."""
    style = evaluation.loaded.model.config.box_style
    for frozen in evaluation.sets:
        if (of_set := frozen.lock.render["boxes"]) != style:
            _log.warning(
                f"{frozen.root}: writes boxes as {of_set}, and the model as {style}, so its questions are not those "
                f"that the model knows; build the set with --boxes {style} for scores that count"
            )


def _identity(evaluation: Evaluation, max_new_tokens: int) -> dict[str, Any]:
    """All that an answer depends on, without anything that may differ between machines that give the same one."""
    model = evaluation.loaded.model
    return {
        "weights_sha256": evaluation.weights_sha256,
        "sets": [frozen.lock.digest for frozen in evaluation.sets],
        "settings": {
            "chat": evaluation.loaded.chat,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "max_new_tokens": max_new_tokens,
        },
        "versions": {name: version(name) for name in _LIBRARIES},
    }


@contextmanager
def _claimed(out: Path | None, identity: Mapping[str, Any], ranks: ProcessGroup) -> Iterator[None]:
    """Lock the output folder on rank 0, for all ranks."""
    lock: BinaryIO | None = None
    problem = None
    if out is not None and ranks.first:
        try:
            lock = claim(out, identity)
        except (SettingsError, DataError) as error:
            problem = str(error)
    try:
        ranks.raise_if_any(problem)
        yield
    finally:
        if lock is not None:
            lock.close()


def _own_questions(evaluation: Evaluation, ranks: ProcessGroup) -> list[Asked]:
    """This rank's share of the questions."""
    own: list[Asked] = []
    with ranks.at_own_pace("reading the questions") as moved:
        for set_no, row, sample in _samples(evaluation.sets, evaluation.rows[ranks.rank :: ranks.world_size]):
            own += questions_of(sample, evaluation.sets[set_no].lock.digest, set_no, row)
            moved()
    regions = next((each.question.source for each in own if each.region_xyxy_px is not None), None)
    ranks.raise_if_any(
        None
        if regions is None or evaluation.loaded.model.region_tower is not None
        else f"{regions} asks about regions, and the model has no region tower: choose other sources with --source, or "
        "other tasks with --task"
    )
    return own


def _longest(asked: Sequence[Asked], loaded: LoadedModel, ranks: ProcessGroup) -> int:
    """A limit of tokens that no true answer of any rank comes near."""
    tokenizer: Any = loaded.tokenizer
    truths = [each.question.truth for each in asked]
    own = (
        max((len(ids) for ids in tokenizer(truths, add_special_tokens=False)["input_ids"]), default=0) if truths else 0
    )
    (longest,) = ranks.highest(own)
    return longest + max(_LEAST_MARGIN, longest // 4)


def _place(asked: Asked) -> Place:
    return asked.question.set, asked.question.key, asked.question.round


def _answered(
    evaluation: Evaluation, left: Sequence[Asked], done: int, max_new_tokens: int, ranks: ProcessGroup
) -> Iterator[list[Prediction]]:
    """Yield the predictions of one batch after the other."""
    loaded = evaluation.loaded
    generator = Generator(loaded.model, loaded.tokenizer, chat=loaded.chat)
    done_before, total = map(int, ranks.sums([done, done + len(left)]))
    progress = _Progress(done_before, total, ranks)
    with ranks.at_own_pace("answering questions") as moved:
        ordered = sorted(left, key=_shape)
        for start in range(0, len(ordered), evaluation.batch):
            batch = ordered[start : start + evaluation.batch]
            images = _images(evaluation.sets, batch)
            shown = [images[each.set_no, each.row] if each.has_image else None for each in batch]
            prompts = [each.prompt(image) for each, image in zip(batch, shown, strict=True)]
            answers = generator.answers(prompts, max_new_tokens)
            yield [
                _prediction(each, answer, prompt, generator, loaded)
                for each, answer, prompt in zip(batch, answers, prompts, strict=True)
            ]
            progress.add(len(batch))
            moved()


def _shape(asked: Asked) -> tuple[object, ...]:
    """A sort key that puts questions together that take about as long, and those about one image side by side."""
    question = asked.question
    prompt = sum(len(turn.text) for turn in asked.turns)
    sizes = (question.truth, "x" * prompt)
    return asked.has_image, *(len(text).bit_length() for text in sizes), *_place(asked)


def _images(sets: Sequence[FrozenSet], batch: Sequence[Asked]) -> dict[tuple[int, int], Image.Image]:
    """Decode the images of a batch, each once, so that the model sees it once, too."""
    rows = {(each.set_no, each.row) for each in batch if each.has_image}
    return {
        (set_no, row): decode(sample, sets[set_no].where(row)) for set_no, row, sample in _samples(sets, sorted(rows))
    }


def _samples(sets: Sequence[FrozenSet], rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, Sample]]:
    """Yield set number, row and sample of some rows, which are given with their set numbers."""
    for set_no, of_set in groupby(rows, key=itemgetter(0)):
        chosen = [row for _, row in of_set]
        yield from ((set_no, row, sample) for row, sample in zip(chosen, sets[set_no].samples(chosen), strict=True))


def _prediction(asked: Asked, answer: Answer, prompt: Prompt, generator: Generator, loaded: LoadedModel) -> Prediction:
    task = asked.question.task
    loss, targets = None, 0
    if task == _TALK:
        loss, targets = answer_loss(loaded.model, loaded.tokenizer, loaded.chat, asked, prompt.image)
    return Prediction(
        question=asked.question,
        answer=answer.text,
        complete=answer.complete,
        box_scores=_box_scores(asked, answer, prompt, generator) if task in NAMED_TASKS else (),
        loss=loss,
        targets=targets,
    )


def _box_scores(asked: Asked, answer: Answer, prompt: Prompt, generator: Generator) -> tuple[float, ...]:
    """The scores of an answer's boxes. They take another pass of the model, so only those that AP ranks have one."""
    question = asked.question
    parsed = parse(answer.text, question.task, complete=answer.complete, question=question.question)
    if not parsed.boxes:
        return ()
    scored = generator.scored_alone(prompt, answer)
    return box_scores(parsed, scored.token_ends, scored.token_logprobs)


class _Progress:
    """Reports the share of answered questions and the time left, every few seconds."""

    def __init__(self, done: int, total: int, ranks: ProcessGroup) -> None:
        self._before, self._total, self._ranks = done, total, ranks
        self._own = 0
        self._began_s = self._said_s = time.monotonic()
        again = f", {done:,} of them answered before" if done else ""
        _log.info(f"{total:,} questions{again}")

    def add(self, questions: int) -> None:
        """Count questions that this rank answered; the other ranks have about as many."""
        self._own += questions
        now_s = time.monotonic()
        if now_s - self._said_s < _SAY_EVERY_S:
            return
        self._said_s = now_s
        done = min(self._total, self._before + self._own * self._ranks.world_size)
        rate = (done - self._before) / (now_s - self._began_s)
        minutes, seconds = divmod(round((self._total - done) / rate), 60) if rate else (0, 0)
        _log.info(
            f"{done:,} of {self._total:,} questions  {rate:.1f}/s  {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
        )
