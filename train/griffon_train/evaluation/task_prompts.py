"""Prompts from what a user asks: a question of their own, or a task's with the template that builds render it with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image

from griffon_shards.grammar import checked_box, format_box
from griffon_shards.support.errors import SettingsError
from griffon_shards.templates import Templates
from griffon_shards.types import IMAGE_TOKEN, REGION_TOKEN, BoxXYXY, Turn
from griffon_train.evaluation.generation import Prompt

_BOX_FAULTS = {
    "not_finite": "a coordinate is not a finite number",
    "inverted": "x1 exceeds x2, or y1 exceeds y2",
    "outside": "it is outside the image",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """A question about an image, or about nothing but text.

    Attributes:
        question: a question in any words; with a region it contains `<region>`. For task VG, the expression to locate.
        task: one of `TASK_PROMPTS`, whose template makes the question; None for a question in the user's words.
        categories: DET: the names to detect.
        box_xyxy_px: REG: the box to describe.
        region_xyxy_px: VISJ, or a question with `<region>`: the crop that it stands for.
    """

    question: str | None = None
    task: str | None = None
    categories: tuple[str, ...] | None = None
    box_xyxy_px: BoxXYXY | None = None
    region_xyxy_px: BoxXYXY | None = None


def prompt_of(inquiry: Inquiry, image: Image.Image | None, templates: Templates, box_style: str) -> Prompt:
    """The prompt of an inquiry.

    Args:
        inquiry: the inquiry.
        image: in RGB, as stored; None for a question about text.
        templates: the first of a task is used.
        box_style: how the model writes boxes, one of `griffon_shards.types.BOX_STYLES`.

    Raises:
        SettingsError: something that the task needs is missing or does not belong to it, or a box is not in the image.
    """
    text = (
        _own_question(inquiry, image) if inquiry.task is None else _task_question(inquiry, image, templates, box_style)
    )
    region = inquiry.region_xyxy_px
    return Prompt(
        turns=(Turn(role="human", text=text),),
        image=image,
        region_xyxy_px=None if region is None or image is None else _clamped(region, image),
    )


def _own_question(inquiry: Inquiry, image: Image.Image | None) -> str:
    question = inquiry.question
    if not question or not question.strip():
        raise SettingsError(f"no question; give one, or a task: {', '.join(TASK_PROMPTS)}")
    _check_fields(inquiry, "a question without a task", needed="question", allowed=("question", "region_xyxy_px"))
    if (inquiry.region_xyxy_px is not None) != (REGION_TOKEN in question):
        raise SettingsError(
            f"the question {question!r:.80} and the region do not fit: give a region, and write {REGION_TOKEN} in the "
            "question where it is meant, or leave out both"
        )
    if image is None:
        if inquiry.region_xyxy_px is not None:
            raise SettingsError(f"the question {question!r:.80} is about a region; give the image that it is a part of")
        return question
    return question if IMAGE_TOKEN in question else f"{IMAGE_TOKEN}\n{question}"


def _task_question(inquiry: Inquiry, image: Image.Image | None, templates: Templates, box_style: str) -> str:
    task = str(inquiry.task)
    if task not in TASK_PROMPTS:
        raise SettingsError(f"task {task!r}: expected one of {', '.join(TASK_PROMPTS)}")
    needed, filling = TASK_PROMPTS[task]
    _check_fields(inquiry, f"task {task}", needed=needed, allowed=(needed,))
    if image is None:
        raise SettingsError(f"task {task} is about an image; give one")
    return templates.question(task, templates.questions[task][0], filling(inquiry, image, box_style), box_style)


def _check_fields(inquiry: Inquiry, what: str, *, needed: str, allowed: tuple[str, ...]) -> None:
    for name, said in _FIELDS.items():
        value = getattr(inquiry, name)
        if name == needed and not (value.strip() if isinstance(value, str) else value):
            raise SettingsError(f"{what} needs {said}")
        if name not in allowed and value is not None:
            raise SettingsError(f"{what} does not take {said}; leave it out")


_FIELDS = {
    "question": "a question, which for VG is the expression to locate",
    "categories": "categories, such as cat, dog",
    "box_xyxy_px": "a box, as x1,y1,x2,y2 in pixels",
    "region_xyxy_px": "a region, as x1,y1,x2,y2 in pixels",
}


def _categories(inquiry: Inquiry, _image: Image.Image, _box_style: str) -> str:
    return ", ".join(inquiry.categories or ())


def _expression(inquiry: Inquiry, _image: Image.Image, _box_style: str) -> str:
    return inquiry.question or ""


def _box(inquiry: Inquiry, image: Image.Image, box_style: str) -> str:
    assert inquiry.box_xyxy_px is not None
    return format_box(_checked("box", inquiry.box_xyxy_px, image), box_style)


def _region(_inquiry: Inquiry, _image: Image.Image, _box_style: str) -> str:
    return REGION_TOKEN


TASK_PROMPTS: Mapping[str, tuple[str, Callable[[Inquiry, Image.Image, str], str]]] = {
    "DET": ("categories", _categories),
    "VG": ("question", _expression),
    "REG": ("box_xyxy_px", _box),
    "VISJ": ("region_xyxy_px", _region),
}
"""By task: the field that it needs, and what fills its template."""


def _checked(what: str, box_xyxy_px: BoxXYXY, image: Image.Image) -> BoxXYXY:
    """The box as rounded fractions, as a build writes it."""
    rounded = checked_box(box_xyxy_px, image.width, image.height)
    if isinstance(rounded, str):
        raise _not_in_image(what, box_xyxy_px, image, _BOX_FAULTS[rounded])
    return rounded


def _clamped(region_xyxy_px: BoxXYXY, image: Image.Image) -> BoxXYXY:
    """The region within the image, as a build stores it."""
    _checked("region", region_xyxy_px, image)
    x1, y1, x2, y2 = region_xyxy_px
    clamped = (max(0.0, x1), max(0.0, y1), min(x2, float(image.width)), min(y2, float(image.height)))
    if clamped[0] == clamped[2] or clamped[1] == clamped[3]:
        raise _not_in_image("region", region_xyxy_px, image, "it has no area")
    return clamped


def _not_in_image(what: str, box_xyxy_px: BoxXYXY, image: Image.Image, fault: str) -> SettingsError:
    corners = ",".join(f"{corner:g}" for corner in box_xyxy_px)
    return SettingsError(
        f"{what} {corners}: {fault}; expected x1,y1,x2,y2 in pixels of an image of {image.width}x{image.height}"
    )
