"""Records and renderings in short: what the tests of the tasks are written with."""

from collections.abc import Sequence

from griffon_prep.records import Record, Region
from griffon_prep.render import render
from griffon_prep.render.settings import RenderSettings, Source
from griffon_shards.templates import Templates, load_templates
from griffon_shards.types import BoxXYXY, Rendering, Turn

OURS = load_templates(None)
BARE = Templates(
    questions={
        "DET": ("<category set>",),
        "RANDDET": ("<expr>",),
        "REG": ("<objs>",),
        "VG": ("<expr>",),
        "VISJ": ("<region>",),
    },
    answer_format={"DET": "", "VISJ": ""},
    sha256="",
)
"""Questions that are only what is filled in."""

SIDES_PX = (1000, 500)
"""Of the picture, unless a record says otherwise: thousandths of the width are pixels."""


def record_of(
    *regions: tuple[str, BoxXYXY],
    absent: Sequence[str] = (),
    record_no: int = 0,
    sides_px: tuple[int, int] = SIDES_PX,
    turns: Sequence[Turn] = (),
    image_path: str | None = "a.jpg",
) -> Record:
    return Record(
        record_no=record_no,
        image_path=image_path,
        width_px=sides_px[0],
        height_px=sides_px[1],
        regions=tuple(Region(phrase=phrase, box_xyxy_px=box) for phrase, box in regions),
        turns=tuple(turns),
        absent_phrases=tuple(absent),
    )


def rendered(
    task: str,
    record: Record,
    *,
    style: str = "text",
    seed: int = 0,
    vocabulary: Sequence[str] = (),
    det_categories: int = 80,
    variants: int = 1,
    templates: Templates = OURS,
) -> tuple[Rendering, ...]:
    """All variants of a record of source `TASK_test`."""
    settings = RenderSettings(
        seed=seed, boxes=style, det_categories=det_categories, variants=variants, templates=templates
    )
    renderings, _ = render(record, Source(tag=f"{task}_test", task=task, vocabulary=tuple(vocabulary)), settings)
    return renderings


def texts(rendering: Rendering) -> tuple[str, str]:
    """Question and answer."""
    question, answer = rendering.turns
    assert (question.role, answer.role) == ("human", "gpt")
    return question.text, answer.text


def filling(rendering: Rendering) -> str:
    """Return the text that was filled into a template of `BARE`."""
    question = texts(rendering)[0]
    assert question.startswith("<image>\n")
    return question.removeprefix("<image>\n")
