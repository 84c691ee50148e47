"""A model is asked with the very questions that builds render."""

from typing import Any

import pytest
from PIL import Image

from griffon_prep.records import Record, Region
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.support.errors import SettingsError
from griffon_shards.templates import Templates, load_templates
from griffon_shards.types import BOX_STYLES, BoxXYXY, Rendering
from griffon_train.evaluation.task_prompts import Inquiry, prompt_of

OURS = load_templates(None)
WIDTH_PX, HEIGHT_PX = 640, 427
BOX: BoxXYXY = (10.3, 21.7, 333.3, 500.0)  # below the lower edge
IMAGE = Image.new("RGB", (WIDTH_PX, HEIGHT_PX))


def rendered(task: str, style: str) -> Rendering:
    """A build's rendering of a record with one box, from the first template alone."""
    first = Templates(
        questions={name: texts[:1] for name, texts in OURS.questions.items()},
        answer_format=OURS.answer_format,
        sha256="",
    )
    record = Record(
        record_no=0,
        image_path="a.jpg",
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        regions=(Region(phrase="the red cup", box_xyxy_px=BOX),),
        turns=(),
    )
    settings = RenderSettings(seed=0, boxes=style, det_categories=1, variants=1, templates=first)
    renderings, _ = render(record, Source(tag=f"{task}_a", task=task), settings)
    return renderings[0]


@pytest.mark.parametrize("style", BOX_STYLES)
@pytest.mark.parametrize(
    "inquiry",
    [
        Inquiry(task="DET", categories=("the red cup",)),
        Inquiry(task="VG", question="the red cup"),
        Inquiry(task="REG", box_xyxy_px=BOX),
        Inquiry(task="VISJ", region_xyxy_px=BOX),
    ],
    ids=lambda inquiry: inquiry.task,
)
def test_a_tasks_question_is_the_one_that_builds_render(inquiry: Inquiry, style: str) -> None:
    prompt = prompt_of(inquiry, IMAGE, OURS, style)
    expected = rendered(str(inquiry.task), style)
    assert prompt.turns == expected.turns[:1]
    assert prompt.region_xyxy_px == expected.region_xyxy_px
    assert prompt.image is IMAGE


def test_several_categories_are_joined_as_builds_join_them() -> None:
    (turn,) = prompt_of(Inquiry(task="DET", categories=("cat", "dog")), IMAGE, OURS, "text").turns
    assert turn.text.startswith(f"<image>\n{OURS.questions['DET'][0].replace('<category set>', 'cat, dog')}\n")


@pytest.mark.parametrize(
    ("question", "asked"),
    [("Where?", "<image>\nWhere?"), ("In <image>, where?", "In <image>, where?")],
)
def test_the_image_comes_first_unless_the_question_places_it(question: str, asked: str) -> None:
    assert prompt_of(Inquiry(question=question), IMAGE, OURS, "text").turns[0].text == asked


def test_a_question_about_text_has_no_image() -> None:
    prompt = prompt_of(Inquiry(question="Why?"), None, OURS, "text")
    assert (prompt.turns[0].text, prompt.image) == ("Why?", None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "DET"}, "task DET needs categories, such as cat, dog"),
        ({"task": "DET", "categories": ()}, "task DET needs categories"),
        ({"task": "VG"}, "task VG needs a question"),
        ({"task": "REG", "question": "What?"}, "task REG does not take a question"),
        ({"task": "VISJ"}, "task VISJ needs a region, as x1,y1,x2,y2 in pixels"),
        ({"task": "VG", "question": "it", "region_xyxy_px": BOX}, "task VG does not take a region.*leave it out"),
        ({"task": "LAZY", "question": "it"}, "task 'LAZY': expected one of DET, VG, REG, VISJ"),
        ({}, "no question; give one, or a task: DET, VG, REG, VISJ"),
        ({"question": "it", "box_xyxy_px": BOX}, "a question without a task does not take a box"),
        ({"question": "What is it?", "region_xyxy_px": BOX}, "write <region> in the question where it is meant"),
        ({"question": "What is <region>?"}, "do not fit: give a region"),
        ({"task": "REG", "box_xyxy_px": (9.0, 9.0, 5.0, 20.0)}, "box 9,9,5,20: x1 exceeds x2.*image of 640x427"),
        ({"task": "REG", "box_xyxy_px": (700.0, 9.0, 800.0, 20.0)}, "box 700,9,800,20: it is outside the image"),
        ({"task": "VISJ", "region_xyxy_px": (5.0, 5.0, 5.0, 9.0)}, "region 5,5,5,9: it has no area"),
        ({"task": "VISJ", "region_xyxy_px": (0.0, 0.0, float("nan"), 9.0)}, "not a finite number"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        prompt_of(Inquiry(**fields), IMAGE, OURS, "text")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "VG", "question": "it"}, "task VG is about an image; give one"),
        ({"question": "What is <region>?", "region_xyxy_px": BOX}, "is about a region; give the image"),
    ],
)
def test_questions_about_images_need_one(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        prompt_of(Inquiry(**fields), None, OURS, "text")
