"""VG, REG and VISJ: an expression to boxes, a box to an expression, a region to the boxes of its category."""

from collections.abc import Sequence

from griffon_prep.records import Record, Rejected
from griffon_prep.render.boxes import CleanBox, check_question_text, no_boxes, unique_phrases
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.grammar import format_answer, format_box
from griffon_shards.types import REGION_TOKEN, BoxXYXY, Rendering, Turn


def ask(
    record: Record,
    source: Source,
    settings: RenderSettings,
    variant: int,
    filling: str,
    answer: str,
    boxes: Sequence[CleanBox] = (),
    region_xyxy_px: BoxXYXY | None = None,
) -> Rendering:
    """Draw a template of the source's task and fill it in; returns the question with its answer.

    `boxes` are those of the answer, in its order.
    """
    draws = source.draws(settings.seed, record.record_no, variant, "template")
    template = draws.choice(settings.templates.questions[source.task])
    question = settings.templates.question(source.task, template, filling, settings.boxes)
    turns = (Turn(role="human", text=question), Turn(role="gpt", text=answer))
    boxes_xyxy_px = tuple(box.box_xyxy_px for box in boxes)
    return Rendering(turns=turns, region_xyxy_px=region_xyxy_px, boxes_xyxy_px=boxes_xyxy_px)


def render_vg(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Ask where the expression is; the answer is all its boxes, or `None` if the annotation lists it as absent."""
    phrase = record.regions[0].phrase if record.regions else record.absent_phrases[0]
    check_question_text([phrase])
    answer = format_answer([(phrase, box.box_xyxy) for box in boxes], settings.boxes)
    return ask(record, source, settings, variant, phrase, answer, boxes)


def render_reg(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Ask what is in the box; the answer is the expression."""
    (box,) = boxes
    return ask(record, source, settings, variant, format_box(box.box_xyxy, settings.boxes), box.phrase)


def render_visj(
    record: Record, boxes: Sequence[CleanBox], source: Source, settings: RenderSettings, variant: int
) -> Rendering:
    """Ask for all objects like the one in a region; the answer is all boxes of its category.

    The category is drawn, then one of its boxes as the region.

    Raises:
        Rejected: `no_objects`; `all_boxes_dropped` if no box has an area to crop.
    """
    if not boxes:
        raise no_boxes(record)
    croppable = [box for box in boxes if _has_area(box.box_xyxy_px)]
    if not croppable:
        raise Rejected("all_boxes_dropped", "no box has an area to crop")
    draws = source.draws(settings.seed, record.record_no, variant, "region")
    category = draws.choice(sorted(unique_phrases(croppable)))
    region = draws.choice([box for box in croppable if box.phrase == category])
    alike = [box for box in boxes if box.phrase == category]
    answer = format_answer([("", box.box_xyxy) for box in alike], settings.boxes)
    return ask(record, source, settings, variant, REGION_TOKEN, answer, alike, region.box_xyxy_px)


def _has_area(box_xyxy_px: BoxXYXY) -> bool:
    x1, y1, x2, y2 = box_xyxy_px
    return x2 > x1 and y2 > y1
