"""The questions that frozen sets ask: each round of a sample's first rendering, with its true answer."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice

from PIL import Image

from griffon_shards.frozen_set import FrozenSet
from griffon_shards.grammar import ANSWERED_WITH_BOXES
from griffon_shards.support.errors import DataError, SettingsError
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, BoxXYXY, Sample, Turn
from griffon_train.evaluation.answers import truth_boxes
from griffon_train.evaluation.generation import Prompt
from griffon_train.evaluation.predictions import Question

_TALK = "LAZY"
_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and what the model is shown with it.

    Attributes:
        question: the question, with its true answer.
        set_no: index of the set.
        row: row of the sample in its set.
        turns: the prompt; it ends with the question.
        has_image: whether the prompt contains `<image>`.
        region_xyxy_px: the crop that `<region>` in the prompt stands for, or None.
    """

    question: Question
    set_no: int
    row: int
    turns: tuple[Turn, ...]
    has_image: bool
    region_xyxy_px: BoxXYXY | None

    def prompt(self, image: Image.Image | None) -> Prompt:
        """Return the prompt; `image` is the sample's, decoded, or None if the prompt has none."""
        return Prompt(turns=self.turns, image=image, region_xyxy_px=self.region_xyxy_px)

    @property
    def answered(self) -> tuple[Turn, ...]:
        """The prompt, followed by the true answer."""
        return (*self.turns, Turn(role="gpt", text=self.question.truth))


def chosen_rows(
    sets: Sequence[FrozenSet], *, tasks: Collection[str], sources: Collection[str], limit: int | None
) -> list[tuple[int, int]]:
    """Return set numbers and rows of the samples to ask about.

    Args:
        sets: the frozen sets.
        tasks: tasks to keep; all if empty.
        sources: tags of sources to keep; all if empty.
        limit: number of samples of each source; None for all. A set's order is shuffled within each source, so the
            first ones are a random choice.

    Raises:
        SettingsError: no sample is left, or no set has one of the sources.
    """
    entries = [(set_no, source) for set_no, frozen in enumerate(sets) for source in frozen.lock.sources]
    known = {source.tag for _, source in entries}
    if unknown := sorted(set(sources) - known):
        raise SettingsError(
            f"--source {', '.join(unknown)}: no set has such a source; the sources are {', '.join(sorted(known))}"
        )
    rows = [
        (set_no, row)
        for set_no, source in entries
        if (not tasks or source.task in tasks) and (not sources or source.tag in sources)
        for row in sets[set_no].rows_of_source(source.tag)[:limit]
    ]
    if not rows:
        there = ", ".join(f"{source.tag} ({source.task})" for _, source in entries)
        raise SettingsError(f"the sets have no samples of these tasks and sources; they have {there}")
    return rows


def questions_of(sample: Sample, digest: str, set_no: int, row: int) -> Iterator[Asked]:
    """Yield the questions of a sample at a row of a set with this digest.

    A round of a LAZY conversation is asked after the true earlier rounds. Rounds of other tasks are questions of their
    own about the same image, so each is asked alone.

    Raises:
        DataError: the boxes do not match the answers.
    """
    tag = sample.key.rpartition("-")[0]
    image = "" if sample.image is None else blake2b(sample.image, digest_size=_DIGEST_BYTES).hexdigest()
    rounds = list(_rounds(sample.turns))
    boxes_xyxy_px = _boxes_of_rounds(sample, [truth.text for _, _, truth in rounds])
    for number, (earlier, human, truth) in enumerate(rounds):
        turns = (*earlier, human) if sample.task == _TALK else (_alone(human, sample),)
        shown = "".join(turn.text for turn in turns if turn.role == "human")
        yield Asked(
            question=Question(
                set=digest,
                key=sample.key,
                source=tag,
                task=sample.task,
                round=number,
                question=human.text,
                truth=truth.text,
                truth_boxes_xyxy_px=boxes_xyxy_px[number],
                image=image,
                width_px=sample.width_px,
                height_px=sample.height_px,
            ),
            set_no=set_no,
            row=row,
            turns=turns,
            has_image=sample.image is not None and IMAGE_TOKEN in shown,
            region_xyxy_px=sample.region_xyxy_px if REGION_TOKEN in shown else None,
        )


def _rounds(turns: Sequence[Turn]) -> Iterator[tuple[tuple[Turn, ...], Turn, Turn]]:
    """Yield each question that is answered: the turns before it, the question, and the answer."""
    for place in range(len(turns) - 1):
        if turns[place].role == "human" and turns[place + 1].role == "gpt":
            yield tuple(turns[:place]), turns[place], turns[place + 1]


def _boxes_of_rounds(sample: Sample, truths: Sequence[str]) -> list[tuple[BoxXYXY, ...] | None]:
    """The boxes in pixels of each round's answer; None if the set has none."""
    if sample.boxes_xyxy_px is None:
        return [None for _ in truths]
    with_boxes = sample.task in ANSWERED_WITH_BOXES
    counts = [len(truth_boxes(truth, sample.task)) if with_boxes else 0 for truth in truths]
    if sum(counts) != len(sample.boxes_xyxy_px):
        raise DataError(
            f"{sample.key}: has {len(sample.boxes_xyxy_px)} boxes in pixels, and {sum(counts)} in its answers; verify "
            "the set with `griffon-shards verify --deep`"
        )
    boxes = iter(sample.boxes_xyxy_px)
    return [tuple(islice(boxes, count)) for count in counts]


def _alone(human: Turn, sample: Sample) -> Turn:
    """The question with the mark of the image, which only the first of several rounds has."""
    if sample.image is None or IMAGE_TOKEN in human.text:
        return human
    return Turn(role="human", text=f"{IMAGE_TOKEN}\n{human.text}")
